// SPDX-License-Identifier: Apache-2.0
// The profile's "peers": windows that another device may reach.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker-core/manifest.h"
#include "broker-core/plan.h"
#include "broker-core/profile_reader.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

constexpr const char* kOther = "0000:00:03.0";

Json window(const Json& changes = Json::object()) {
    Json made{{"name", "ram"},     {"region", "bar2"}, {"offset", {{"base", 0}, {"stride", "64KiB"}}},
              {"length", "64KiB"}, {"access", "rw"},   {"methods", {"mmap", "dmabuf"}}};
    made.update(changes);
    return made;
}

Json peer(const Json& changes = Json::object()) {
    Json made{{"window", "ram"},
              {"device", kOther},
              {"iova", {{"base", "16MiB"}, {"stride", "64KiB"}}},
              {"access", "w"}};
    made.update(changes);
    return made;
}

Result<Profile> read(const Json& windows, const Json& peers, unsigned slices = 2) {
    const Json document{{"postern", 1},
                        {"slices", slices},
                        {"device",
                         {{"windows", windows.is_array() ? windows : Json::array({windows})},
                          {"peers", peers.is_array() ? peers : Json::array({peers})}}}};
    POSTERN_ASSIGN(Profile profile, read_profile(document, true));
    POSTERN_TRY(check_profile(profile));
    profile.name = "test";
    return profile;
}

std::string refusal(const Json& windows, const Json& peers) {
    const auto profile = read(windows, peers);
    return profile ? "no error" : profile.error().message;
}

DeviceInfo ram_of(const std::string& bdf) {
    DeviceInfo info;
    info.bdf = bdf;
    info.regions[2] = {1 << 20, 2ULL << 40, true, true, {{0, 1 << 20}}};
    info.iova_ranges = {{0, 0xfee00000}, {0xfef00000, 1ULL << 39}};
    return info;
}

TEST(PeerMapping, OfEverySlice) {
    const auto profile = read({window()}, {peer()});
    ASSERT_TRUE(profile) << profile.error().message;
    const auto plan = plan_device(*profile, ram_of("0000:00:07.0"));
    ASSERT_TRUE(plan) << plan.error().message;
    const PlannedPeer& second = plan->slices.at(1).peers.at(0);
    EXPECT_EQ(second.window, "ram");
    EXPECT_EQ(second.device, kOther);
    EXPECT_EQ(second.region, 2U);
    EXPECT_EQ(second.pages.begin, 0x10000U);
    EXPECT_EQ(second.pages.end, 0x20000U);
    EXPECT_EQ(second.iova, 0x1010000U);
    EXPECT_FALSE(second.access.read);
    EXPECT_TRUE(second.access.write);

    Json manifest = empty_manifest("g");
    add_device(manifest, *plan, plan->slices[1], std::vector<VendedWindow>(1), true);
    EXPECT_EQ(
        manifest["peers"],
        Json::parse(
            R"([{"window": "ram", "device": "0000:00:03.0", "iova": 16842752, "size": 65536, "access": "w"}])"));
}

TEST(PeerMapping, WithoutPeersTheManifestHasNone) {
    const auto profile = read({window()}, Json::array());
    ASSERT_TRUE(profile);
    const auto plan = plan_device(*profile, ram_of("0000:00:07.0"));
    ASSERT_TRUE(plan);
    Json manifest = empty_manifest("g");
    add_device(manifest, *plan, plan->slices[0], std::vector<VendedWindow>(1), true);
    EXPECT_FALSE(manifest.contains("peers"));
    EXPECT_TRUE(check_without_peers(*profile));
}

TEST(PeerMapping, WhatCannotBe) {
    EXPECT_EQ(refusal({window()}, {peer()}), "no error");
    EXPECT_THAT(refusal({window()}, {peer({{"window", "rom"}})}),
                HasSubstr("device.peers[0].window: the profile has no window \"rom\""));
    EXPECT_THAT(refusal({window({{"methods", {"pread"}}})}, {peer()}), HasSubstr("not reached by pages"));
    EXPECT_THAT(refusal({window({{"length", 100}})}, {peer()}), HasSubstr("whole pages"));
    EXPECT_THAT(refusal({window({{"offset", 16}})}, {peer()}), HasSubstr("device.windows[0]: offset"));
    EXPECT_THAT(refusal({window({{"access", "r"}})}, {peer()}), HasSubstr("access \"w\" is more than"));
    EXPECT_THAT(refusal({window({{"access", "w"}})}, {peer({{"access", "r"}})}),
                HasSubstr("access \"r\" is more than"));
    EXPECT_THAT(refusal({window()}, {peer({{"device", "3"}})}), HasSubstr("device.peers[0].device"));
    EXPECT_THAT(refusal({window()}, {peer({{"iova", 4100}})}), HasSubstr("device.peers[0]: iova 0x1004"));
    EXPECT_THAT(refusal({window()}, {peer({{"speed", 1}})}), HasSubstr("device.peers[0]"));
    EXPECT_THAT(refusal({window()}, {peer({{"iova", "16MiB"}})}), HasSubstr("overlaps \"ram\" of slice 0"));
    EXPECT_THAT(refusal({window()}, {peer(), peer()}), HasSubstr("overlaps \"ram\" of slice 0"));
    // Of another device the addresses are others.
    EXPECT_EQ(refusal({window()}, {peer(), peer({{"device", "0000:00:04.0"}})}), "no error");
}

TEST(PeerMapping, ADeviceIsNotItsOwnPeer) {
    const auto profile = read({window()}, {peer()});
    ASSERT_TRUE(profile);
    const auto plan = plan_device(*profile, ram_of(kOther));
    ASSERT_FALSE(plan);
    EXPECT_THAT(plan.error().message, HasSubstr("device.peers[0]"));
    EXPECT_THAT(plan.error().message, HasSubstr("itself"));
}

TEST(PeerMapping, WhoOwnsOneDeviceHasNoPeers) {
    const auto profile = read({window()}, {peer()});
    ASSERT_TRUE(profile);
    const auto refused = check_without_peers(*profile);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("device.peers[0]: 0000:00:03.0"));
    EXPECT_THAT(refused.error().message, HasSubstr("postern broker"));
}

TEST(PeerMapping, RoomInTheOthersAddressSpace) {
    const Json document{
        {"postern", 1},
        {"slices", 2},
        {"device",
         {{"dma",
           {{{"name", "ring"}, {"size", "64KiB"}, {"iova", {{"base", 0x100000}, {"stride", 0x10000}}}}}},
          {"dma_map", {{"size", "1MiB"}, {"iova", {{"base", 0x200000}, {"stride", 0x100000}}}}}}}};
    const auto profile = read_profile(document, true);
    ASSERT_TRUE(profile);
    const DeviceInfo info = ram_of(kOther);
    const auto plan = plan_device(*profile, info);
    ASSERT_TRUE(plan) << plan.error().message;
    const auto room = [&](uint64_t iova, uint64_t size) {
        const auto checked = check_room(*plan, info, iova, size);
        return checked ? "room" : checked.error().message;
    };
    EXPECT_EQ(room(0, 0x100000), "room");
    EXPECT_EQ(room(0x120000, 0xe0000), "room");
    EXPECT_EQ(room(0x400000, 0x1000), "room");
    EXPECT_THAT(room(0x11f000, 0x1000), HasSubstr("overlaps dma \"ring\" of slice 1"));
    EXPECT_THAT(room(0xff000, 0x2000), HasSubstr("overlaps dma \"ring\" of slice 0"));
    EXPECT_THAT(room(0x3ff000, 0x1000), HasSubstr("overlaps dma_map of slice 1"));
    EXPECT_THAT(room(0xfee00000, 0x1000), HasSubstr("is not in what the IOMMU maps"));
    EXPECT_THAT(room(0x800, 0x1000), HasSubstr("in units of"));
}

}  // namespace
}  // namespace postern
