// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/hook_report.h"

#include <gmock/gmock.h>

#include <string>

namespace postern {
namespace {

using namespace std::string_literals;

TEST(HookReport, EachRefusalHasAStatusOfItsOwn) {
    EXPECT_EQ(status_of(BrokerRefusal::Busy), HookStatus::Busy);
    EXPECT_EQ(status_of(BrokerRefusal::Denied), HookStatus::Denied);
    EXPECT_EQ(status_of(BrokerRefusal::NotFound), HookStatus::NoSuchSlice);
    EXPECT_EQ(status_of(BrokerRefusal::Failed), HookStatus::NoGrant);
    EXPECT_EQ(status_of(BrokerRefusal::BadRequest), HookStatus::NoGrant);
    EXPECT_EQ(status_of(std::nullopt), HookStatus::NoGrant);
}

TEST(HookReport, FindsTheRuntimesLog) {
    const RuntimeLog crun =
        runtime_log("/usr/bin/crun\0--log-format=json\0--log\0/run/oci-log\0create\0--bundle\0/b\0box\0"s);
    EXPECT_EQ(crun.file, "/run/oci-log");
    EXPECT_TRUE(crun.json);
    const RuntimeLog runc = runtime_log("runc\0--log=/run/log.txt\0create\0"s);
    EXPECT_EQ(runc.file, "/run/log.txt");
    EXPECT_FALSE(runc.json);
    EXPECT_EQ(runtime_log("crun\0--log=file:/run/x\0run\0"s).file, "/run/x");
    for (const std::string& without :
         {""s, "crun\0run\0box\0"s, "crun\0--log\0"s, "crun\0--log-format\0json\0"s})
        EXPECT_EQ(runtime_log(without).file, "") << without;
}

}  // namespace
}  // namespace postern
