// SPDX-License-Identifier: Apache-2.0
#include "broker-core/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker-core/manifest.h"
#include "broker-core/profile_reader.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

Profile profile_with(const Json& device, unsigned slices = 1) {
    const auto profile = read_profile({{"postern", 1}, {"slices", slices}, {"device", device}}, false);
    EXPECT_TRUE(profile) << (profile ? "" : profile.error().message);
    Profile named = *profile;
    named.name = "test";
    return named;
}

/// A device like QEMU's virtio-blk: 16 KiB of doorbells and registers in BAR 4, MSI-X in BAR 1.
DeviceInfo virtio_like() {
    DeviceInfo info;
    info.bdf = "0000:00:05.0";
    info.id = {0x1af4, 0x1042, 0x1af4, 0x1100};
    info.regions[1] = {4096, 1ULL << 40, true, true, {{0, 4096}}};
    info.regions[4] = {0x8000, 4ULL << 40, true, true, {{0, 0x8000}}};
    info.regions[7] = {256, 7ULL << 40, true, true, {}};
    info.irqs[2] = {5, true};
    info.msix = MsixLocation{1, {0, 80}, 1, {2048, 2056}};
    info.iova_ranges = {{0, 0xfee00000}, {0xfef00000, 1ULL << 39}};
    return info;
}

Json window(uint64_t offset, const char* region = "bar4", uint64_t length = 4096) {
    return {{"name", "w"}, {"region", region}, {"offset", offset}, {"length", length}};
}

std::string refusal(const Json& device, DeviceInfo info = virtio_like()) {
    const auto plan = plan_device(profile_with(device), info);
    return plan ? "no error" : plan.error().message;
}

TEST(Plan, ComputesEverySlice) {
    const Profile profile = profile_with(
        {{"windows",
          {{{"name", "doorbell"},
            {"region", "bar4"},
            {"offset", {{"base", 0x3000}, {"stride", 0x1000}}},
            {"length", 4096},
            {"methods", {"mmap", "dmabuf"}}}}},
         {"dma",
          {{{"name", "ring"}, {"size", "2MiB"}, {"iova", {{"base", "0x10000000"}, {"stride", "2MiB"}}}}}},
         {"irqs", {{{"name", "vq"}, {"index", "msix"}, {"vector", {{"base", 1}, {"stride", 1}}}}}}},
        4);
    const auto plan = plan_device(profile, virtio_like());
    ASSERT_TRUE(plan) << plan.error().message;
    ASSERT_EQ(plan->slices.size(), 4U);
    EXPECT_EQ(plan->slices[3].windows[0].file_offset, (4ULL << 40) + 0x6000);
    EXPECT_EQ(plan->slices[2].dma[0].iova, 0x10400000U);
    EXPECT_EQ(plan->slices[1].irqs[0].vector, 2U);
    EXPECT_TRUE(plan->bus_master);
}

TEST(Plan, RefusesOtherHardware) {
    EXPECT_THAT(
        refusal({{"match", {{"vendor", 0x8086}}}}),
        HasSubstr("profile test: device.match.vendor: the profile is for 0x8086 and the device is 0x1af4"));
    EXPECT_EQ(refusal({{"match", {{"vendor", 0x1af4}, {"device", 0x1042}}}}), "no error");
}

TEST(Plan, WindowsStayInTheirBar) {
    EXPECT_EQ(refusal({{"windows", {window(0x7000)}}}), "no error");
    EXPECT_THAT(refusal({{"windows", {window(0x8000)}}}),
                HasSubstr("device.windows[0]: 0x8000 to 0x9000 ends outside of bar4, which has 32KiB"));
    EXPECT_THAT(refusal({{"windows", {window(0x7000, "bar4", 0x2000)}}}), HasSubstr("ends outside"));
    EXPECT_THAT(refusal({{"windows", {window(0, "bar2")}}}),
                HasSubstr("the device has no bar2; it has bar1 (4KiB), bar4 (32KiB)"));
}

TEST(Plan, MsixStructuresAreOutOfReach) {
    EXPECT_THAT(refusal({{"windows", {window(0, "bar1")}}}), HasSubstr("lies across the MSI-X table"));
    DeviceInfo info = virtio_like();
    info.msix = MsixLocation{4, {0x2000, 0x2050}, 4, {0x2800, 0x2808}};
    EXPECT_THAT(refusal({{"windows", {window(0x1000, "bar4", 0x2000)}}}, info),
                HasSubstr("MSI-X table at 0x2000"));
    EXPECT_EQ(refusal({{"windows", {window(0x1000)}}}, info), "no error");
    // By pread the exact bytes count, not the page.
    Json by_pread = window(0x2100, "bar4", 16);
    by_pread["methods"] = {"pread"};
    EXPECT_EQ(refusal({{"windows", {by_pread}}}, info), "no error");
    by_pread["offset"] = 0x2040;
    EXPECT_THAT(refusal({{"windows", {by_pread}}}, info), HasSubstr("MSI-X table"));
    by_pread["offset"] = 0x2800;
    EXPECT_THAT(refusal({{"windows", {by_pread}}}, info), HasSubstr("MSI-X pending bits"));
}

TEST(Plan, OnlyMappablePartsAreMapped) {
    DeviceInfo info = virtio_like();
    info.regions[4].mappable = {{0, 0x2000}, {0x3000, 0x8000}};
    EXPECT_THAT(refusal({{"windows", {window(0x1000, "bar4", 0x3000)}}}, info),
                HasSubstr("cannot be mapped"));
    EXPECT_EQ(refusal({{"windows", {window(0x3000)}}}, info), "no error");
}

TEST(Plan, InterruptsAndIovasMustExist) {
    EXPECT_THAT(refusal({{"irqs", {{{"name", "i"}, {"index", "msix"}, {"vector", 5}}}}}),
                HasSubstr("device.irqs[0]: vector 5 of msix is wanted and the device has 5"));
    EXPECT_EQ(refusal({{"irqs", {{{"name", "i"}, {"index", "msix"}, {"vector", 4}}}}}), "no error");
    EXPECT_THAT(refusal({{"dma", {{{"name", "d"}, {"size", 4096}, {"iova", "0xfee00000"}}}}}),
                HasSubstr("device.dma[0]: iova 0xfee00000"));
    EXPECT_EQ(refusal({{"dma", {{{"name", "d"}, {"size", 4096}, {"iova", "0xfef00000"}}}}}), "no error");
}

TEST(Plan, ResetMustBePossible) {
    EXPECT_THAT(refusal({{"reset", "before"}}), HasSubstr("device.reset: the device has no way to be reset"));
    DeviceInfo info = virtio_like();
    info.can_reset = true;
    EXPECT_EQ(refusal({{"reset", "both"}}, info), "no error");
}

TEST(Plan, SlicesAreCounted) {
    const Profile profile = profile_with(Json::object(), 4);
    EXPECT_TRUE(check_slice(profile, 3));
    const auto outside = check_slice(profile, 4);
    ASSERT_FALSE(outside);
    EXPECT_EQ(outside.error().message, "profile test: --slice 4: the profile has slices 0 to 3");
}

TEST(Manifest, IsTheContracts) {
    const Profile profile =
        profile_with({{"windows", {window(0x3000)}},
                      {"ioctls", {"VFIO_DEVICE_GET_INFO"}},
                      {"dma", {{{"name", "ring"}, {"size", "2MiB"}, {"iova", "0x10000000"}}}},
                      {"irqs", {{{"name", "vq"}, {"index", "msix"}, {"vector", 1}}}}});
    const auto plan = plan_device(profile, virtio_like());
    ASSERT_TRUE(plan);
    Json client = empty_manifest("g");
    client["fds"] = fd_numbers({"manifest", "device", "window.w", "dma.ring", "irq.vq"});
    add_device(client, *plan, plan->slices[0], {{true, MmapSource{"device", (4ULL << 40) + 0x3000}, 0}},
               true);
    EXPECT_EQ(client.at("device"), "0000:00:05.0");
    EXPECT_EQ(client.at("fds").at("irq.vq"), 7);
    EXPECT_EQ(client.at("windows")[0].at("mmap").at("offset"), (4ULL << 40) + 0x3000);
    EXPECT_EQ(client.at("windows")[0].at("region"), 4);
    EXPECT_EQ(client.at("windows")[0].at("guard"), 0);
    Json by_dmabuf = empty_manifest("g");
    add_device(by_dmabuf, *plan, plan->slices[0], {{true, MmapSource{"window.w", 0}, {}}}, true);
    EXPECT_FALSE(by_dmabuf.at("windows")[0].contains("guard"));
    EXPECT_EQ(by_dmabuf.at("device"), "0000:00:05.0");
    Json alone = empty_manifest("g");
    add_device(alone, *plan, plan->slices[0], {{true, MmapSource{"window.w", 0}, 0}}, false);
    EXPECT_EQ(alone.at("device"), false);
    EXPECT_EQ(alone.at("windows")[0].at("mmap"), Json({{"fd", "window.w"}, {"offset", 0}}));
    EXPECT_EQ(alone.at("windows")[0].at("guard"), 0);
    EXPECT_EQ(client.at("dma")[0].at("fd"), "dma.ring");
    EXPECT_EQ(client.at("irqs")[0].at("vector"), 1);
    EXPECT_EQ(client.at("slice"), 0);
    EXPECT_EQ(client.at("ioctls")[0], "VFIO_DEVICE_GET_INFO");
    const Json setup =
        program_manifest("g", *plan, std::nullopt, {"manifest", "device", "dma.ring.0", "irq.vq.0"});
    EXPECT_EQ(setup.at("dma")[0].at("fd"), "dma.ring.0");
    EXPECT_EQ(setup.at("dma")[0].at("slice"), 0);
    EXPECT_FALSE(setup.contains("slice"));
}

/// A configuration space with one MSI-X capability at 0x40.
std::string msix_config() {
    std::string config(256, '\0');
    config[0x06] = 0x10;  // status: has a capability list
    config[0x34] = 0x40;
    config[0x40] = 0x11;  // MSI-X
    config[0x42] = 4;     // five vectors
    config[0x44] = 0x01;  // table: BAR 1, offset 0
    config[0x48] = 0x01;
    config[0x49] = 0x08;  // pending bits: BAR 1, offset 0x800
    return config;
}

TEST(ConfigSpace, FindsMsix) {
    const ConfigFacts facts = parse_config_space(msix_config());
    ASSERT_TRUE(facts.msix);
    EXPECT_EQ(facts.msix_vectors, 5U);
    EXPECT_EQ(facts.msix->table.end, 80U);
    EXPECT_EQ(facts.msix->pba.begin, 0x800U);
}

TEST(ConfigSpace, SurvivesLoopsAndTruncation) {
    std::string loop = msix_config();
    loop[0x41] = 0x40;  // next: itself
    EXPECT_TRUE(parse_config_space(loop).msix);
    EXPECT_FALSE(parse_config_space(std::string_view(loop).substr(0, 0x34)).msix);
    EXPECT_FALSE(parse_config_space("").msix);
}

}  // namespace
}  // namespace postern
