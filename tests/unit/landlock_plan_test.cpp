// SPDX-License-Identifier: Apache-2.0
#include "launcher/landlock_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "launcher/landlock_uapi.h"

namespace postern {
namespace {

using namespace landlock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kNewest = 7;

LandlockPlan plan_of(const LandlockRules& rules, int abi = kNewest) {
    auto plan = make_landlock_plan(rules, abi);
    EXPECT_TRUE(plan) << plan.error().message;
    return plan.value_or(LandlockPlan{});
}

std::map<std::string, std::uint64_t> paths_of(const LandlockPlan& plan) {
    std::map<std::string, std::uint64_t> paths;
    for (const LandlockPlan::Path& rule : plan.paths) paths[rule.path] |= rule.access;
    return paths;
}

TEST(LandlockPlan, OfNoRulesHasTheScopesThatTheKernelKnows) {
    EXPECT_EQ(plan_of({}).scoped, kScopeAbstractUnixSocket | kScopeSignal);
    EXPECT_EQ(plan_of({}).handled_fs, 0U);
    EXPECT_TRUE(plan_of({}, 5).is_empty());
    EXPECT_TRUE(plan_of(no_landlock()).is_empty());
    LandlockRules one = no_landlock();
    one.scope_signals = true;
    EXPECT_EQ(plan_of(one).scoped, kScopeSignal);
}

TEST(LandlockPlan, RestrictsTheGroupsThatHaveAListAndNoOther) {
    LandlockRules rules;
    rules.read = {"/a"};
    LandlockPlan plan = plan_of(rules);
    EXPECT_EQ(plan.handled_fs, kReadFile | kReadDir | kRefer);
    EXPECT_EQ(paths_of(plan)["/a"], kReadFile | kReadDir);
    EXPECT_EQ(paths_of(plan)["/"], kRefer) << "files can still be moved";
    EXPECT_EQ(plan.handled_net, 0U);

    rules = {};
    rules.write = std::vector<std::string>{};
    plan = plan_of(rules);
    EXPECT_EQ(plan.handled_fs, kWriteFile | kRemoveAndMake | kRefer | kTruncate);
    EXPECT_THAT(plan.paths, IsEmpty()) << "nothing may be moved either";

    rules = {};
    rules.execute = {"/x"};
    rules.read = {"/r"};
    rules.write = {"/w"};
    rules.ioctl = {"/i"};
    plan = plan_of(rules);
    EXPECT_EQ(plan.handled_fs, 0xffffU) << "all that ABI 7 has";
    EXPECT_EQ(paths_of(plan)["/r"], kReadFile | kReadDir);
    EXPECT_EQ(paths_of(plan)["/x"], kExecute | kReadFile | kReadDir);
    EXPECT_EQ(paths_of(plan)["/w"], kReadFile | kReadDir | kWriteFile | kRemoveAndMake | kRefer | kTruncate);
    EXPECT_EQ(paths_of(plan)["/i"], kIoctlDev);
    EXPECT_EQ(paths_of(plan).count("/"), 0U);

    rules = {};
    rules.bind_tcp = {80, 443};
    plan = plan_of(rules);
    EXPECT_EQ(plan.handled_net, kBindTcp);
    ASSERT_EQ(plan.ports.size(), 2U);
    EXPECT_EQ(plan.ports[1].port, 443U);
    EXPECT_EQ(plan.ports[1].access, kBindTcp);
    rules = {};
    rules.connect_tcp = std::vector<std::uint16_t>{};
    EXPECT_EQ(plan_of(rules).handled_net, kConnectTcp);
    EXPECT_EQ(plan_of(rules).handled_fs, 0U);
}

LandlockRules everything() {
    LandlockRules rules;
    rules.read = {"/r"};
    rules.write = {"/w"};
    rules.execute = {"/x"};
    rules.ioctl = {"/i"};
    rules.bind_tcp = {1};
    rules.connect_tcp = {2};
    return rules;
}

TEST(LandlockPlan, LeavesOutWhatTheKernelDoesNotKnow) {
    const std::map<int, std::uint64_t> handled = {{-1, 0},     {0, 0},      {1, 0x1fff}, {2, 0x3fff},
                                                  {3, 0x7fff}, {4, 0x7fff}, {5, 0xffff}, {6, 0xffff}};
    for (const auto& [abi, fs] : handled) {
        const LandlockPlan plan = plan_of(everything(), abi);
        EXPECT_EQ(plan.handled_fs, fs) << abi;
        EXPECT_EQ(plan.handled_net, abi >= 4 ? 3U : 0U) << abi;
        EXPECT_EQ(plan.ports.size(), abi >= 4 ? 2U : 0U) << abi;
        EXPECT_EQ(plan.scoped, abi >= 6 ? 3U : 0U) << abi;
        for (const LandlockPlan::Path& rule : plan.paths) {
            EXPECT_EQ(rule.access & ~plan.handled_fs, 0U) << abi << " " << rule.path;
            EXPECT_NE(rule.access, 0U) << abi << " " << rule.path;
        }
    }
    LandlockRules read;
    read.read = {"/r"};
    EXPECT_EQ(plan_of(read, 1).handled_fs, kReadFile | kReadDir) << "there was no kRefer";
}

TEST(LandlockPlan, SaysWhatItLeavesOut) {
    EXPECT_THAT(landlock_gaps(everything(), kNewest), IsEmpty());
    EXPECT_THAT(landlock_gaps(everything(), 5), IsEmpty()) << "scopes are for who has them";
    EXPECT_THAT(
        landlock_gaps(everything(), 4),
        ElementsAre(
            "sandbox.landlock.ioctl is not enforced: that takes Landlock's ABI 5 (Linux 6.10), and this "
            "kernel has ABI 4"));
    EXPECT_THAT(landlock_gaps(everything(), 2),
                ElementsAre(HasSubstr("write is not enforced for truncate(2)"), HasSubstr("ioctl"),
                            HasSubstr("bind_tcp is not enforced: that takes Landlock's ABI 4 (Linux 6.7)"),
                            HasSubstr("connect_tcp")));
    EXPECT_EQ(landlock_gaps(everything(), -1).size(), 6U);
    EXPECT_THAT(landlock_gaps(everything(), -1).front(), HasSubstr("this kernel has no Landlock"));
    EXPECT_THAT(landlock_gaps({}, -1), IsEmpty());
}

TEST(LandlockPlan, IsRefusedWhereWhatIsRequiredIsNotThere) {
    LandlockRules rules = everything();
    rules.require = true;
    EXPECT_TRUE(make_landlock_plan(rules, 6));
    EXPECT_THAT(landlock_gaps(rules, 1), IsEmpty()) << "an error, not a weakening";
    const auto refused = [&](int abi) {
        const auto plan = make_landlock_plan(rules, abi);
        return plan ? "" : plan.error().message;
    };
    EXPECT_THAT(refused(5),
                HasSubstr("\"scopes\" takes Landlock's ABI 6 (Linux 6.12), and this kernel has ABI 5"));
    EXPECT_THAT(refused(4), HasSubstr("\"ioctl\" takes Landlock's ABI 5"));
    EXPECT_THAT(refused(2), HasSubstr("\"write\" takes Landlock's ABI 3"));
    EXPECT_THAT(refused(-1),
                HasSubstr("\"read\" takes Landlock's ABI 1 (Linux 5.13), and this kernel has no Landlock"));
    rules = no_landlock();
    rules.require = true;
    rules.read = {"/r"};
    EXPECT_TRUE(make_landlock_plan(rules, 1));
    EXPECT_FALSE(make_landlock_plan(rules, 0));
}

}  // namespace
}  // namespace postern
