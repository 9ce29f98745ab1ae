// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace postern {
namespace {

using testing::HasSubstr;
using Kind = SliceChoice::Kind;

constexpr uid_t kAlice = 1000;
constexpr uid_t kBob = 1001;
constexpr gid_t kLab = 50;
constexpr unsigned kSlices = 4;

BrokerDevice device_with(std::vector<SliceRule> rules) {
    BrokerDevice device;
    device.name = "disk";
    device.bdf = "0000:00:02.0";
    device.allow = std::move(rules);
    return device;
}

SliceRule for_user(uid_t uid) {
    SliceRule rule;
    rule.users = {uid};
    return rule;
}

Caller user(uid_t uid, gid_t gid = 9999, std::vector<gid_t> groups = {}) {
    return {uid, gid, std::move(groups)};
}

TEST(BrokerAccess, IsForUsersGroupsAndEveryone) {
    const BrokerDevice nobody = device_with({});
    EXPECT_FALSE(may_use(nobody, user(kAlice)));
    EXPECT_TRUE(may_use(nobody, user(0)));
    const BrokerDevice alices = device_with({for_user(kAlice)});
    EXPECT_TRUE(may_use(alices, user(kAlice)));
    EXPECT_FALSE(may_use(alices, user(kBob)));
    // A group with the number of a user is another thing.
    EXPECT_FALSE(may_use(alices, user(kBob, kAlice, {kAlice})));
    SliceRule rule;
    rule.groups = {kLab};
    const BrokerDevice labs = device_with({rule});
    EXPECT_TRUE(may_use(labs, user(kBob, kLab)));
    EXPECT_TRUE(may_use(labs, user(kBob, 1, {2, kLab})));
    EXPECT_FALSE(may_use(labs, user(kLab, 1, {2})));
    rule = {};
    rule.everyone = true;
    EXPECT_TRUE(may_use(device_with({rule}), user(65534)));
}

TEST(SliceChoice, IsTheFirstFreeOne) {
    const BrokerDevice device = device_with({for_user(kAlice)});
    EXPECT_EQ(choose_slice(device, kSlices, user(kAlice), {}, {}).slice, 0U);
    const std::vector<TakenSlice> taken{{0, kBob}, {1, kAlice}};
    const SliceChoice choice = choose_slice(device, kSlices, user(kAlice), {}, taken);
    EXPECT_EQ(choice.kind, Kind::Free);
    EXPECT_EQ(choice.slice, 2U);
    EXPECT_EQ(choose_slice(device, kSlices, user(kAlice), 3, taken).slice, 3U);
    EXPECT_EQ(choose_slice(device, kSlices, user(0), {}, taken).slice, 2U);
}

TEST(SliceChoice, TellsBusyFromDenied) {
    const BrokerDevice device = device_with({for_user(kAlice)});
    const std::vector<TakenSlice> all{{0, kBob}, {1, kBob}, {2, kBob}, {3, kBob}};
    SliceChoice choice = choose_slice(device, kSlices, user(kAlice), {}, all);
    EXPECT_EQ(choice.kind, Kind::Busy);
    EXPECT_THAT(choice.reason, HasSubstr("no slice is free"));
    choice = choose_slice(device, kSlices, user(kAlice), 2, all);
    EXPECT_EQ(choice.kind, Kind::Busy);
    EXPECT_THAT(choice.reason, HasSubstr("slice 2 is in use"));
    choice = choose_slice(device, kSlices, user(kBob), {}, {});
    EXPECT_EQ(choice.kind, Kind::Denied);
    EXPECT_THAT(choice.reason, HasSubstr("uid 1001 may not use it"));
    choice = choose_slice(device, kSlices, user(kAlice), kSlices, {});
    EXPECT_EQ(choice.kind, Kind::Denied);
    EXPECT_THAT(choice.reason, HasSubstr("they are 0 to 3"));
    EXPECT_EQ(choose_slice(device, kSlices, user(0), {}, all).kind, Kind::Busy);
}

TEST(SliceChoice, KeepsToTheSlicesOfTheRule) {
    SliceRule rule = for_user(kAlice);
    rule.slices = {{1, 3}};
    const BrokerDevice device = device_with({rule});
    EXPECT_EQ(choose_slice(device, kSlices, user(kAlice), {}, {}).slice, 1U);
    const SliceChoice denied = choose_slice(device, kSlices, user(kAlice), 2, {});
    EXPECT_EQ(denied.kind, Kind::Denied);
    EXPECT_THAT(denied.reason, HasSubstr("may not have slice 2"));
    const std::vector<TakenSlice> both{{1, kBob}, {3, kBob}};
    EXPECT_EQ(choose_slice(device, kSlices, user(kAlice), {}, both).kind, Kind::Busy);
    EXPECT_EQ(choose_slice(device, kSlices, user(0), {}, both).slice, 0U);
    SliceRule none = for_user(kAlice);
    none.slices.emplace();
    EXPECT_EQ(choose_slice(device_with({none}), kSlices, user(kAlice), {}, {}).kind, Kind::Denied);
    SliceRule beyond = for_user(kAlice);
    beyond.slices = {{7}};
    EXPECT_EQ(choose_slice(device_with({beyond}), kSlices, user(kAlice), {}, {}).kind, Kind::Denied);
}

TEST(SliceChoice, CountsWhatAUserHas) {
    SliceRule rule = for_user(kAlice);
    rule.most = 2;
    const BrokerDevice device = device_with({rule});
    // Others' slices, and those of a process with another number of the same user, count by the user.
    EXPECT_EQ(choose_slice(device, kSlices, user(kAlice), {}, std::vector<TakenSlice>{{0, kBob}, {1, kAlice}})
                  .slice,
              2U);
    const SliceChoice full =
        choose_slice(device, kSlices, user(kAlice), {}, std::vector<TakenSlice>{{0, kAlice}, {1, kAlice}});
    EXPECT_EQ(full.kind, Kind::Busy);
    EXPECT_THAT(full.reason, HasSubstr("has 2 slices already"));
    EXPECT_THAT(full.reason, HasSubstr("(2)"));
    // Another rule that gives more wins.
    SliceRule more;
    more.groups = {kLab};
    more.most = 3;
    const BrokerDevice both = device_with({rule, more});
    EXPECT_EQ(
        choose_slice(both, kSlices, user(kAlice, kLab), {}, std::vector<TakenSlice>{{0, kAlice}, {1, kAlice}})
            .slice,
        2U);
}

}  // namespace
}  // namespace postern
