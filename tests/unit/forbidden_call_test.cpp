// SPDX-License-Identifier: Apache-2.0
#include "launcher/forbidden_call.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "launcher/system_call.h"
#include "launcher/system_call_name.h"

namespace postern {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::system_clock;

const system_clock::time_point kThen{milliseconds(1795388836369)};

/// As Linux 6.18 wrote it.
std::string record(const std::string& prefix = "5,2407,31162388191,-", const std::string& fields = "",
                   const std::string& comm = "\"touch\"") {
    return fmt::format(
        "{};audit: type=1326 audit(1795388836.369:2407): auid=4294967295 uid=65534 gid=65534 ses=4294967295 "
        "pid=26088 comm={} exe=\"/usr/bin/touch\" {}\n",
        prefix, comm,
        fields.empty() ? "sig=31 arch=c000003e syscall=83 compat=0 ip=0x7ffa code=0x80000000" : fields);
}

TEST(ForbiddenCall, IsReadFromTheKernelsRecord) {
    EXPECT_EQ(read_seccomp_record(record(), 26088, kThen), (ForbiddenCall{83, "mkdir", "x86_64"}));
    const auto of = [](const std::string& fields) {
        return read_seccomp_record(record("5,1,1,-", fields), 26088, kThen);
    };
    EXPECT_EQ(of("sig=31 arch=40000003 syscall=20 compat=1"), (ForbiddenCall{20, "getpid", "i386"}));
    EXPECT_EQ(of("sig=31 arch=c000003e syscall=1073741863 compat=0"), (ForbiddenCall{39, "getpid", "x32"}));
    EXPECT_EQ(of("sig=31 arch=c000003e syscall=462 compat=0"), (ForbiddenCall{462, "mseal", "x86_64"}))
        << "newer than the installed libseccomp";
    EXPECT_EQ(of("sig=31 arch=c000003e syscall=9999 compat=0"), (ForbiddenCall{9999, "", "x86_64"}));
}

TEST(ForbiddenCall, IsNoOtherProcesss) {
    EXPECT_FALSE(read_seccomp_record(record(), 26089, kThen));
    EXPECT_FALSE(read_seccomp_record(record(), 2608, kThen));
    EXPECT_TRUE(read_seccomp_record(record(), 26088, kThen + milliseconds(4))) << "the log's clock ticks";
    EXPECT_FALSE(read_seccomp_record(record(), 26088, kThen + seconds(1)))
        << "of one that had this pid before";
}

TEST(ForbiddenCall, IsTheKernelsWordOnly) {
    EXPECT_FALSE(read_seccomp_record(record("13,2407,31162388191,-"), 26088, kThen))
        << "what a program wrote to /dev/kmsg";
    EXPECT_FALSE(read_seccomp_record(record("5,1,1,-", "sig=0 arch=c000003e syscall=83"), 26088, kThen))
        << "logged, not killed";
    for (const char* text :
         {"", ";", "5,1,1,-;", "5,1,1,-;usb 1-1: new device", "5,1,1,-;audit: type=1326 ",
          "5,1,1,-;audit: type=1326 audit(x:1): pid=26088 sig=31 arch=c000003e syscall=83",
          "5,1,1,-;audit: type=1326 audit(1795388836.369:1): pid=26088 sig=31 arch= syscall=83",
          "5,1,1,-;audit: type=1326 audit(1795388836.369:1): pid=26088 sig=31 arch=1"}) {
        EXPECT_FALSE(read_seccomp_record(text, 26088, kThen)) << text;
    }
}

TEST(ForbiddenCall, NamesGoBackToNumbers) {
    for (const char* name : {"read", "clone3", "mseal", "listns"}) {
        const auto number = system_call_number(name);
        ASSERT_TRUE(number) << name;
        EXPECT_EQ(system_call_name(*number), name);
    }
    int named = 0;
    for (int number = 0; number < 600; ++number) {
        const std::string name(system_call_name(number));
        if (name.empty()) continue;
        ++named;
        EXPECT_EQ(system_call_number(name), number) << name;
    }
    EXPECT_GT(named, 350);
    EXPECT_EQ(system_call_name(20, SystemCallAbi::I386), "getpid");
    EXPECT_EQ(system_call_name(39, SystemCallAbi::X32), "getpid");
    EXPECT_EQ(system_call_name(100000), "");
    EXPECT_EQ(system_call_name(-1), "");
}

}  // namespace
}  // namespace postern
