// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/slice_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace postern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> names_of(const std::vector<NamedSlice>& slices) {
    std::vector<std::string> names;
    names.reserve(slices.size());
    for (const NamedSlice& each : slices) names.push_back(each.name);
    return names;
}

Result<std::vector<NamedSlice>> two_devices() {
    BrokerDevice disk;
    disk.name = "disk";
    disk.bdf = "0000:00:02.0";
    const std::vector<SlicedDevice> devices{sliced_device(disk, 2), {"edu", "0000:00:03.0", 1}};
    return name_slices(devices);
}

std::string refused(const std::vector<SlicedDevice>& devices) {
    const auto names = name_slices(devices);
    return names ? "accepted" : names.error().message;
}

TEST(SliceName, NamesDevicesAndTheirSlices) {
    const auto names = two_devices();
    ASSERT_TRUE(names) << names.error().message;
    EXPECT_THAT(names_of(*names), ElementsAre("disk", "disk.0", "disk.1", "edu", "edu.0"));
}

TEST(SliceName, FindsASliceOrAnyOfADevice) {
    const auto names = two_devices();
    ASSERT_TRUE(names) << names.error().message;
    const auto second = find_slice(*names, "disk.1");
    ASSERT_TRUE(second) << second.error().message;
    EXPECT_EQ(second->bdf, "0000:00:02.0");
    EXPECT_EQ(second->slice, 1U);
    const auto any = find_slice(*names, "edu");
    ASSERT_TRUE(any) << any.error().message;
    EXPECT_EQ(any->bdf, "0000:00:03.0");
    EXPECT_EQ(any->slice, std::nullopt);
}

TEST(SliceName, TellsTheNearestNameOfAnUnknownOne) {
    const auto names = two_devices();
    ASSERT_TRUE(names) << names.error().message;
    for (const char* wrong : {"dist.1", "disk.2", "disk.01", "disk.", "disk.-1", "disk.1 ", "DISK.1"}) {
        const auto found = find_slice(*names, wrong);
        ASSERT_FALSE(found) << wrong;
        EXPECT_THAT(found.error().message, HasSubstr(std::string("there is no slice \"") + wrong + "\""));
        EXPECT_THAT(found.error().message, HasSubstr("did you mean \"disk"));
    }
    const auto hostile = find_slice(*names, "a\nb\x1b");
    ASSERT_FALSE(hostile);
    EXPECT_THAT(hostile.error().message, HasSubstr("\"a?b?\""));
}

TEST(SliceName, SaysThatNothingIsConfigured) {
    const auto found = find_slice({}, "disk.0");
    ASSERT_FALSE(found);
    EXPECT_THAT(found.error().message, HasSubstr("no device is configured in /etc/postern/devices.d"));
}

TEST(SliceName, ANameMeansOneThing) {
    EXPECT_THAT(refused({{"disk", "0000:00:02.0", 2}, {"disk.1", "0000:00:03.0", 1}}),
                HasSubstr("disk.1: is a name of 0000:00:02.0 and of 0000:00:03.0"));
    EXPECT_EQ(refused({{"disk", "0000:00:02.0", 2}, {"disk.2", "0000:00:03.0", 1}}), "accepted");
}

TEST(SliceName, KnowsWhichNamesCanBe) {
    for (const char* good : {"disk", "a", "0000:00:02.0", "my-disk_2.x", "9"}) {
        EXPECT_TRUE(is_slice_name(good)) << good;
        EXPECT_EQ(refused({{good, "0000:00:02.0", 1}}), "accepted");
    }
    for (const char* bad : {"", "-disk", "disk-", ".d", "a b", "a/b", "d\xc3\xa9j\xc3\xa0", "a=b", "a,b"}) {
        EXPECT_FALSE(is_slice_name(bad)) << bad;
        EXPECT_THAT(refused({{bad, "0000:00:02.0", 1}}), HasSubstr("cannot be the name of a slice")) << bad;
    }
    EXPECT_TRUE(is_slice_name(std::string(63, 'a')));
    EXPECT_FALSE(is_slice_name(std::string(64, 'a')));
    // With its slices' numbers.
    EXPECT_THAT(refused({{std::string(62, 'a'), "0000:00:02.0", 1}}), HasSubstr("cannot be the name"));
}

}  // namespace
}  // namespace postern
