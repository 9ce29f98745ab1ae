// SPDX-License-Identifier: Apache-2.0
#include "launcher/id_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/user_map.h"

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string refusal(const Status& status) {
    return status ? "" : status.error().message;
}

TEST(SubordinateIds, AreThoseOfTheUserByNameAndNumber) {
    const char* text =
        "other:100000:65536\nme:165536:65536\n12:300000:10\nme:165536:65536\nme:x:1\nme:1\nme\n:5:5\n"
        "me:7:0\nme:4294967290:10\nmean:1:1\n12x:1:1\nme:400000:5";
    EXPECT_THAT(
        subordinate_ids(text, "me", 12),
        ElementsAre(SubordinateIds{165536, 65536}, SubordinateIds{300000, 10}, SubordinateIds{400000, 5}));
    EXPECT_THAT(subordinate_ids(text, "", 12), ElementsAre(SubordinateIds{300000, 10}))
        << "one without a name";
    EXPECT_THAT(subordinate_ids(text, "nobody", 13), IsEmpty());
    EXPECT_THAT(subordinate_ids("", "me", 12), IsEmpty());
}

TEST(IdMap, HasTheOwnIdInItsPlaceAndTheOthersAroundIt) {
    const std::vector<SubordinateIds> ids = {{100000, 10}};
    EXPECT_THAT(map_subordinate_ids(ids, std::nullopt), ElementsAre(IdRange{0, 100000, 10}));
    EXPECT_THAT(map_subordinate_ids(ids, IdRange{0, 1000, 1}),
                ElementsAre(IdRange{1, 100000, 10}, IdRange{0, 1000, 1}));
    EXPECT_THAT(map_subordinate_ids(ids, IdRange{4, 1000, 1}),
                ElementsAre(IdRange{0, 100000, 4}, IdRange{5, 100004, 6}, IdRange{4, 1000, 1}));
    EXPECT_THAT(map_subordinate_ids(ids, IdRange{10, 1000, 1}),
                ElementsAre(IdRange{0, 100000, 10}, IdRange{10, 1000, 1}));
    EXPECT_THAT(map_subordinate_ids(ids, IdRange{65534, 1000, 1}),
                ElementsAre(IdRange{0, 100000, 10}, IdRange{65534, 1000, 1}));
    EXPECT_THAT(map_subordinate_ids({{100000, 4}, {200000, 4}}, IdRange{4, 1000, 1}),
                ElementsAre(IdRange{0, 100000, 4}, IdRange{5, 200000, 4}, IdRange{4, 1000, 1}));
    for (const std::uint32_t own : {0U, 1U, 5U, 9U, 10U, 11U}) {
        const IdMap map = map_subordinate_ids(ids, IdRange{own, 1000, 1});
        EXPECT_TRUE(check_id_map(map, "map")) << own;
        EXPECT_EQ(outside_id(map, own), 1000U);
        EXPECT_EQ(outside_id(map, own == 3 ? 4 : 3), own <= 3 ? 100002U : 100003U) << own;
    }
}

TEST(IdMap, IsCheckedAsTheKernelDoes) {
    EXPECT_TRUE(check_id_map({{0, 100000, 10}, {10, 1000, 1}}, "m"));
    EXPECT_THAT(refusal(check_id_map({{0, 100000, 10}, {9, 1000, 1}}, "m")),
                HasSubstr("m: [0, 100000, 10] and [9, 1000, 1]"));
    EXPECT_THAT(refusal(check_id_map({{0, 100000, 10}, {10, 100009, 1}}, "m")), HasSubstr("in common"));
    EXPECT_THAT(refusal(check_id_map({{0, 1, 0}}, "m")), HasSubstr("[0, 1, 0]"));
    EXPECT_THAT(refusal(check_id_map({{0, 0xfffffff0, 16}}, "m")), HasSubstr("of ids that there are"));
    EXPECT_TRUE(check_id_map({{0, 0xffffffef, 16}}, "m"));
    IdMap many;
    for (std::uint32_t i = 0; i < 340; ++i) many.push_back({i, i + 1000, 1});
    EXPECT_TRUE(check_id_map(many, "m"));
    many.push_back({340, 2000, 1});
    EXPECT_FALSE(check_id_map(many, "m"));
    EXPECT_EQ(id_map_text({{0, 100000, 10}, {10, 1000, 1}}), "0 100000 10\n10 1000 1");
    EXPECT_EQ(outside_id({{5, 100, 2}}, 6), 101U);
    EXPECT_FALSE(outside_id({{5, 100, 2}}, 7));
    EXPECT_FALSE(outside_id({{5, 100, 2}}, 4));
}

TEST(WideUserMap, NeverGivesRootsIdsAway) {
    const UserMap user = make_user_map(0, 0, 1000, 1001, false);
    const auto wide =
        make_wide_user_map(user, {{1, 100000, 10}, {0, 1000, 1}}, {{1, 100000, 10}, {0, 1001, 1}}, false);
    ASSERT_TRUE(wide) << wide.error().message;
    EXPECT_TRUE(wide->by_helper);
    EXPECT_TRUE(wide->may_set_groups);
    EXPECT_EQ(wide->outside_uid, 1000U);
    EXPECT_EQ(wide->outside_gid, 1001U);

    const IdMap good = {{0, 100000, 10}};
    const IdMap bad = {{0, 100000, 10}, {10, 0, 1}};
    const UserMap root = make_user_map(0, 0, 0, 0, false);
    EXPECT_TRUE(make_wide_user_map(root, good, good, true));
    for (const bool privileged : {true, false}) {
        EXPECT_FALSE(make_wide_user_map(root, bad, good, privileged));
        EXPECT_FALSE(make_wide_user_map(root, good, bad, privileged));
        EXPECT_FALSE(make_wide_user_map(user, bad, good, privileged));
        EXPECT_FALSE(make_wide_user_map(user, good, bad, privileged)) << "his group is another";
    }
    // An ordinary user whose group is root's has that group already, and no more of it.
    const UserMap grouped = make_user_map(0, 10, 1000, 0, false);
    EXPECT_TRUE(make_wide_user_map(grouped, good, bad, false));
    EXPECT_FALSE(make_wide_user_map(grouped, good, {{0, 100000, 10}, {10, 0, 2}}, false));
    EXPECT_FALSE(make_wide_user_map(grouped, good, bad, true));
}

TEST(WideUserMap, HasTheClientInIt) {
    const UserMap user = make_user_map(20, 0, 1000, 1001, false);
    const IdMap some = {{0, 100000, 10}};
    EXPECT_FALSE(make_wide_user_map(user, some, some, false));
    const auto found = make_wide_user_map(user, {{20, 5000, 1}}, some, true);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->outside_uid, 5000U);
    EXPECT_FALSE(found->by_helper);
}

TEST(WideUserMap, CanSetGroupsWhereTheKernelLetsIt) {
    const UserMap user = make_user_map(0, 0, 1000, 1001, false);
    const IdMap own = {{0, 1001, 1}};
    const auto alone = make_wide_user_map(user, {{0, 1000, 1}}, own, false);
    ASSERT_TRUE(alone);
    EXPECT_FALSE(alone->may_set_groups);
    EXPECT_TRUE(
        make_wide_user_map(user, {{0, 1000, 1}}, {{0, 1001, 1}, {1, 100000, 1}}, false)->may_set_groups);
    EXPECT_TRUE(make_wide_user_map(user, {{0, 1000, 1}}, own, true)->may_set_groups);
}

}  // namespace
}  // namespace postern
