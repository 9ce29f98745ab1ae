// SPDX-License-Identifier: Apache-2.0
#include "launcher/ctest_resources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>

namespace postern {
namespace {

using ::testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

Result<CtestSlice> allotted(const Variables& variables) {
    return allotted_slice([&](const std::string& name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional(found->second);
    });
}

Variables one(const std::string& resource) {
    return {{"CTEST_RESOURCE_GROUP_COUNT", "1"},
            {"CTEST_RESOURCE_GROUP_0", "postern"},
            {"CTEST_RESOURCE_GROUP_0_POSTERN", resource}};
}

std::string refusal(const Variables& variables) {
    const auto slice = allotted(variables);
    EXPECT_FALSE(slice);
    return slice ? "" : slice.error().message;
}

TEST(CtestResources, SpecIsWhatCtestReads) {
    const Json spec = ctest_resource_spec("0000:00:02.0", 2);
    EXPECT_EQ(spec["version"], (Json{{"major", 1}, {"minor", 0}}));
    ASSERT_EQ(spec["local"].size(), 1U);
    EXPECT_EQ(spec["local"][0]["postern"],
              (Json{{{"id", "0000_00_02_0_s0"}, {"slots", 1}}, {{"id", "0000_00_02_0_s1"}, {"slots", 1}}}));
}

TEST(CtestResources, IdsReadBack) {
    for (const CtestSlice& slice :
         {CtestSlice{"0000:00:02.0", 0}, CtestSlice{"abcd:ef:1f.7", 4095}, CtestSlice{"", 3}}) {
        const std::string id = ctest_id(slice);
        EXPECT_TRUE(std::regex_match(id, std::regex("[a-z0-9_]+"))) << id;
        const auto back = parse_ctest_id(id);
        ASSERT_TRUE(back) << back.error().message;
        EXPECT_EQ(*back, slice);
    }
    for (const char* bad : {"", "0", "s", "s-1", "s99999999999", "0000_00_02_0", "0000_00_02_s1",
                            "x_y_z_0_s1", "0000_00_02_9_s1", "0000_00_02_0_1", "0000_00_02_0_s1_s2"}) {
        EXPECT_FALSE(parse_ctest_id(bad)) << bad;
    }
}

TEST(CtestResources, TheAllottedSliceIsTaken) {
    const auto slice = allotted(one("id:0000_00_02_0_s3,slots:1"));
    ASSERT_TRUE(slice) << slice.error().message;
    EXPECT_EQ(*slice, (CtestSlice{"0000:00:02.0", 3}));
    Variables among_others = one("id:s1,slots:1");
    among_others["CTEST_RESOURCE_GROUP_COUNT"] = "2";
    among_others["CTEST_RESOURCE_GROUP_0"] = "gpus,postern";
    among_others["CTEST_RESOURCE_GROUP_1"] = "gpus";
    EXPECT_EQ(allotted(among_others), (CtestSlice{"", 1}));
}

TEST(CtestResources, RefusalsSayWhatToDo) {
    EXPECT_THAT(refusal({}), HasSubstr("--resource-spec-file"));
    EXPECT_THAT(refusal({{"CTEST_RESOURCE_GROUP_COUNT", "many"}}), HasSubstr("not a number"));
    EXPECT_THAT(refusal({{"CTEST_RESOURCE_GROUP_COUNT", "0"}}), HasSubstr("no resource of type"));
    EXPECT_THAT(refusal({{"CTEST_RESOURCE_GROUP_COUNT", "1"}, {"CTEST_RESOURCE_GROUP_0", "gpus"}}),
                HasSubstr("RESOURCE_GROUPS"));
    EXPECT_THAT(refusal({{"CTEST_RESOURCE_GROUP_COUNT", "1"}, {"CTEST_RESOURCE_GROUP_0", "postern"}}),
                HasSubstr("is not set"));
    EXPECT_THAT(refusal(one("")), HasSubstr("not \"id:"));
    EXPECT_THAT(refusal(one("slots:1")), HasSubstr("names no id"));
    EXPECT_THAT(refusal(one("id:s1,slots:2")), HasSubstr("one slot"));
    EXPECT_THAT(refusal(one("id:s1,slots:1;id:s2,slots:1")), HasSubstr("more than one"));
    EXPECT_THAT(refusal(one("id:card0,slots:1")), HasSubstr("--ctest-resources"));
}

}  // namespace
}  // namespace postern
