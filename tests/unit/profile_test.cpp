// SPDX-License-Identifier: Apache-2.0
#include "broker-core/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "broker-core/profile_reader.h"
#include "launcher/launch.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

/// Reads and checks one text, as load_profile() does with a file.
Result<Profile> read(std::string_view text) {
    POSTERN_ASSIGN(const Json document, parse_json(text));
    POSTERN_ASSIGN(Profile profile, read_profile(document, false));
    POSTERN_TRY(check_profile(profile));
    return profile;
}

std::string error_of(std::string_view text) {
    const auto profile = read(text);
    return profile ? "no error" : profile.error().message;
}

constexpr std::string_view kGood = R"({
  "postern": 1, "description": "four queues", "slices": 4,
  "device": {
    "match": {"vendor": "0x1af4", "device": "0x1042"},
    "windows": [{"name": "doorbell", "region": "bar4", "offset": {"base": "0x3000", "stride": 4096}, "length": 4096,
                 "access": "rw", "methods": ["mmap", "dmabuf"]}],
    "ioctls": ["VFIO_DEVICE_GET_INFO", {"name": "VFIO_DEVICE_RESET"}],
    "dma": [{"name": "ring", "size": "2MiB", "iova": {"base": "0x10000000", "stride": "2MiB"}, "access": "rw"}],
    "irqs": [{"name": "vq", "index": "msix", "vector": {"base": 1, "stride": 1}}],
    "setup": {"device": ["prepare", ["other", "--flag"]]}, "reset": "before", "forward": "never"
  },
  "sandbox": {"root": {"path": "/srv/root"}, "rlimits": {"nofile": [64, 128]}, "user": {"uid": 1000}, "time_limit": "60s",
              "env": {"set": {"A": "b"}, "keep": ["HOME"]}, "cgroup": {"memory.max": "64MiB", "cpu.max": "50000 100000"}}
})";

TEST(Profile, ReadsEveryField) {
    const auto profile = read(kGood);
    ASSERT_TRUE(profile) << profile.error().message;
    EXPECT_EQ(profile->slices, 4U);
    const DeviceProfile& device = *profile->device;
    EXPECT_EQ(*device.match.vendor, 0x1af4);
    ASSERT_EQ(device.windows.size(), 1U);
    EXPECT_EQ(device.windows[0].region, 4U);
    EXPECT_EQ(device.windows[0].offset.at(3), 0x6000U);
    EXPECT_TRUE(device.windows[0].by_mmap && device.windows[0].by_dmabuf && !device.windows[0].by_pread);
    ASSERT_EQ(device.ioctls.size(), 2U);
    EXPECT_EQ(device.ioctls[0].number, 0x3b6bU);  // _IO(';', 107)
    EXPECT_EQ(device.dma[0].size, 2U << 20);
    EXPECT_EQ(device.irqs[0].index, 2U);
    EXPECT_EQ(device.setup.device[1][1], "--flag");
    EXPECT_EQ(device.reset, Reset::Before);
    EXPECT_EQ(device.forward, Forward::Never);
    EXPECT_EQ(profile->sandbox.root, "/srv/root");
    EXPECT_EQ(profile->sandbox.uid, 1000U);
    EXPECT_EQ(profile->sandbox.gid, 65534U);
    EXPECT_EQ(profile->sandbox.time_limit->count(), 60000);
    EXPECT_EQ(profile->sandbox.cgroup.at("memory.max"), "67108864");
    EXPECT_EQ(profile->sandbox.cgroup.at("cpu.max"), "50000 100000");
}

/// "VFIO_DEVICE_SET_IRQS" with these args, as the guard gets it for a slice; the only ioctl of a profile of 4
/// slices.
GuardIoctl guard_ioctl(const std::string& name, const std::string& args, unsigned slice = 0) {
    const auto profile = read(fmt::format(
        R"({{"postern": 1, "slices": 4, "device": {{"ioctls": [{{"name": "{}", "args": {}}}]}}}})", name,
        args));
    EXPECT_TRUE(profile) << profile.error().message;
    return profile ? for_guard(profile->device->ioctls.at(0), slice) : GuardIoctl{};
}

TEST(ArgumentRules, AreTestsOfFields) {
    const GuardIoctl ioctl = guard_ioctl(
        "VFIO_DEVICE_SET_IRQS",
        R"([{"field": "index", "equals": "msix"}, {"field": "start", "min": 1, "max": {"base": 1, "stride": 2}},
            {"field": "count", "in": [1, 3]}, {"field": "flags", "mask": "0x21"},
            {"field": "flags", "mask": "0x7", "equals": 1}])",
        3);
    EXPECT_EQ(ioctl.number, 0x3b6eU);
    EXPECT_EQ(ioctl.block_size, 20U);
    EXPECT_EQ(ioctl.size_at, 0U);
    ASSERT_EQ(ioctl.alternatives.size(), 1U);
    const Alternative& tests = ioctl.alternatives[0];
    ASSERT_EQ(tests.size(), 5U);
    using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;
    EXPECT_EQ(tests[0].offset, 8U);
    EXPECT_EQ(tests[0].width, 4U);
    EXPECT_EQ(tests[0].ranges, (Ranges{{2, 2}}));
    EXPECT_EQ(tests[1].ranges, (Ranges{{1, 7}}));
    EXPECT_EQ(tests[2].ranges, (Ranges{{1, 1}, {3, 3}}));
    EXPECT_EQ(tests[3].mask, 0xffffffdeU);  // no other bit may be set
    EXPECT_EQ(tests[3].ranges, (Ranges{{0, 0}}));
    EXPECT_EQ(tests[4].mask, 7U);
    EXPECT_EQ(tests[4].ranges, (Ranges{{1, 1}}));
}

TEST(ArgumentRules, FeaturesByNumberAndDirection) {
    const GuardIoctl ioctl = guard_ioctl(
        "VFIO_DEVICE_FEATURE",
        R"([{"field": "feature", "equals": "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY"}, {"field": "direction", "equals": "set"}])");
    const Alternative& tests = ioctl.alternatives.at(0);
    EXPECT_EQ(tests.at(0).offset, 4U);
    EXPECT_EQ(tests.at(0).width, 2U);
    EXPECT_EQ(tests.at(0).ranges.at(0).first, 3U);
    EXPECT_EQ(tests.at(1).offset, 6U);
    EXPECT_EQ(tests.at(1).ranges.at(0).first, 2U);
}

TEST(ArgumentRules, TakeTheDangerOutOfAnIoctl) {
    const auto weak = [](const std::string& ioctl) {
        const auto profile = read(R"({"postern": 1, "device": {"ioctls": [)" + ioctl + "]}}");
        EXPECT_TRUE(profile) << profile.error().message;
        return weakenings(*profile).size();
    };
    EXPECT_EQ(weak(R"("VFIO_DEVICE_SET_IRQS")"), 1U);
    EXPECT_EQ(weak(R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": 2}]})"), 0U);
}

/// The controls of args_value_outside_mask and the like: as close to a rule that nothing fits as can be.
TEST(ArgumentRules, MasksThatLeaveSomethingToFit) {
    const auto first_range = [](const std::string& test, unsigned slice = 0) {
        return guard_ioctl("VFIO_DEVICE_SET_IRQS", R"([{"field": "flags", )" + test + "}]", slice)
            .alternatives.at(0)
            .at(0)
            .ranges.at(0);
    };
    using Range = std::pair<uint64_t, uint64_t>;
    EXPECT_EQ(first_range(R"("mask": "0xf1", "equals": "0x21")"), Range(0x21, 0x21));
    EXPECT_EQ(first_range(R"("mask": 3, "in": [1, 2])"), Range(1, 1));
    EXPECT_EQ(first_range(R"("mask": 0, "equals": 0)"), Range(0, 0));
    EXPECT_EQ(first_range(R"("mask": 7, "min": 7)"), Range(7, 0xffffffff));
    EXPECT_EQ(first_range(R"("mask": "0xf0", "min": "0x51", "max": "0x60")"), Range(0x51, 0x60));
    EXPECT_EQ(first_range(R"("mask": "0x80000000", "min": "0x7fffffff")"), Range(0x7fffffff, 0xffffffff));
    EXPECT_EQ(first_range(R"("mask": "0x80000000", "max": "0x7fffffff")"), Range(0, 0x7fffffff));
    EXPECT_EQ(first_range(R"("mask": 7, "equals": {"base": 2, "stride": 1})", 3), Range(5, 5));
}

/// All masks and ranges of four bits, against trying all values.
TEST(ArgumentRules, ThatNothingFitsAreExactlyThoseRefused) {
    for (uint64_t mask = 0; mask < 16; ++mask) {
        for (uint64_t first = 0; first < 16; ++first) {
            for (uint64_t last = first; last < 16; ++last) {
                bool fits = false;
                for (uint64_t value = 0; value < 16; ++value)
                    fits = fits || ((value & mask) >= first && (value & mask) <= last);
                IoctlRule rule;
                rule.name = "VFIO_DEVICE_SET_IRQS";
                rule.args = {{.field = "flags", .mask = mask, .ranges = {{{first, 0}, {last, 0}}}}};
                EXPECT_EQ(fits, check_ioctls({rule}, 1).has_value())
                    << fmt::format("{:#x} {:#x} to {:#x}", mask, first, last);
            }
        }
    }
}

/// Ioctls of files of no known sort and of iommufd, checked together as those of one client.
std::string error_of_ioctls(const std::vector<std::string>& texts) {
    std::vector<IoctlRule> ioctls;
    for (const std::string& text : texts) {
        const auto document = parse_json(text);
        EXPECT_TRUE(document) << text;
        JsonReading reading;
        ioctls.push_back(read_ioctl(*document, "ioctls", reading, std::nullopt));
        EXPECT_FALSE(reading.error) << text << reading.error->message;
    }
    const Status checked = check_ioctls(ioctls, 4);
    // Each as if it were another file's: what counts is that one client has them.
    std::vector<std::vector<IoctlRule>> each;
    for (const IoctlRule& rule : ioctls) each.push_back({rule});
    std::vector<IoctlList> lists;
    for (const auto& list : each) lists.push_back({fmt::format("files[{}]", lists.size()), &list});
    const Status together = check_blocks_stay_sealed(lists, 4);
    if (!checked) return checked.error().message;
    return together ? "no error" : together.error().message;
}

TEST(ArgumentRules, AreNotBesideAWayForTheDeviceToWriteTheirBlocks) {
    const std::string rule =
        R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": "msix"}]})";
    const auto map_file = [](const std::string& args) {
        return R"({"name": "IOMMU_IOAS_MAP_FILE", "args": [)" + args + "]}";
    };
    const std::string read_only = map_file(R"({"field": "flags", "mask": "0x5"})");
    for (const std::string& refused :
         {std::string(R"("IOMMU_IOAS_MAP_FILE")"), std::string(R"("0x3b8f")"), map_file(""),
          map_file(R"({"field": "iova", "equals": 4096})"), map_file(R"({"field": "flags", "mask": "0x7"})"),
          map_file(R"({"field": "flags", "in": [5, 7]})"), map_file(R"({"field": "flags", "max": 4})"),
          map_file(R"({"field": "flags", "mask": "0x1", "equals": 1})"),
          map_file(R"({"field": "flags", "equals": {"base": 0, "stride": 1}})")}) {
        EXPECT_THAT(error_of_ioctls({rule, refused}), HasSubstr("files[1].ioctls[0]: ")) << refused;
        EXPECT_THAT(
            error_of_ioctls({rule, refused}),
            HasSubstr("maps memfds for the device to write to, sealed ones as well, so that the rules "
                      "on VFIO_DEVICE_SET_IRQS"))
            << refused;
        // An alternative that is harmless does not make the other one so.
        EXPECT_THAT(error_of_ioctls({read_only, refused}), HasSubstr("files[1].ioctls[0]: ")) << refused;
    }
    // A rule on the ioctl itself that leaves writing open could be deceived by what it maps.
    EXPECT_THAT(error_of_ioctls({map_file(R"({"field": "iova", "equals": 4096})")}),
                HasSubstr("files[0].ioctls[0]: "));
    for (const std::string& harmless :
         {read_only, map_file(R"({"field": "flags", "equals": 5})"),
          map_file(R"({"field": "flags", "in": [4, 5]})"),
          map_file(R"({"field": "iova", "max": 4096}, {"field": "flags", "max": 1})"),
          map_file(R"({"field": "flags", "mask": "0x2", "equals": 0})"),
          std::string(R"({"name": "IOMMU_IOAS_MAP", "args": [{"field": "flags", "equals": 7}]})"),
          std::string(R"("VFIO_IOMMU_MAP_DMA")"), std::string(R"("0x3b90")")}) {
        EXPECT_EQ(error_of_ioctls({rule, harmless}), "no error") << harmless;
    }
    EXPECT_EQ(error_of_ioctls({R"("IOMMU_IOAS_MAP_FILE")", R"("VFIO_DEVICE_SET_IRQS")"}), "no error");
}

TEST(ArgumentRules, AreRefusedWhereTheyCannotBeEnforced) {
    auto ruled = read(
        R"({"postern": 1, "device": {"ioctls": ["VFIO_DEVICE_RESET", {"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": 2}]}]}})");
    ASSERT_TRUE(ruled) << ruled.error().message;
    ruled->name = "mine";
    EXPECT_TRUE(check_rules_hold(*ruled, true));
    const Status refused = check_rules_hold(*ruled, false);
    ASSERT_FALSE(refused);
    EXPECT_THAT(
        refused.error().message,
        HasSubstr(
            "profile mine: device.ioctls: VFIO_DEVICE_SET_IRQS: rules on ioctl arguments need mseal(2)"));
    for (const char* unruled :
         {R"({"postern": 1})", R"({"postern": 1, "device": {"ioctls": ["VFIO_DEVICE_RESET"]}})"}) {
        const auto profile = read(unruled);
        ASSERT_TRUE(profile);
        EXPECT_TRUE(check_rules_hold(*profile, false));
    }
}

TEST(Profile, DefaultsAreEverythingOff) {
    const auto profile = read(R"({"postern": 1})");
    ASSERT_TRUE(profile);
    EXPECT_FALSE(profile->device);
    EXPECT_EQ(profile->sandbox.namespaces.size(), 7U);
    EXPECT_EQ(profile->sandbox.seccomp, "default");
    EXPECT_TRUE(profile->sandbox.no_new_privs);
    EXPECT_TRUE(profile->sandbox.capabilities.empty());
    EXPECT_TRUE(weakenings(*profile).empty());
}

/// A change of the good profile, and what the one-line error must say.
struct BadCase {
    const char* name;
    const char* pointer;  ///< RFC 6901 pointer into kGood
    const char* value;    ///< JSON put there
    const char* says;
};

class BadProfile : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadProfile, IsRefusedInOneClearLine) {
    Json document = Json::parse(kGood);
    document[Json::json_pointer(GetParam().pointer)] = Json::parse(GetParam().value);
    const std::string error = error_of(document.dump());
    EXPECT_THAT(error, HasSubstr(GetParam().says));
    EXPECT_EQ(error.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadProfile,
    ::testing::Values(
        BadCase{"version", "/postern", "2", "version 2 of the profile format"},
        BadCase{"unknown_key", "/devices", "{}", "devices: unknown key; did you mean \"device\"?"},
        BadCase{"unknown_nested", "/device/windows/0/lenght", "1",
                "device.windows[0].lenght: unknown key; did you mean \"length\"?"},
        BadCase{"wrong_type", "/device/windows/0/length", "[]",
                "device.windows[0].length: must be an integer"},
        BadCase{"negative", "/device/windows/0/length", "-4096",
                "device.windows[0].length: must be an integer"},
        BadCase{"fraction", "/slices", "1.5", "slices: must be an integer"},
        BadCase{"slices_zero", "/slices", "0", "slices: 0 is out of range"},
        BadCase{"windows_object", "/device/windows", "{}", "device.windows: must be an array"},
        BadCase{"off_page", "/device/windows/0/offset", "\"0x3800\"",
                "device.windows[0]: offset 0x3800 is not page aligned (4096); use 0x3000"},
        BadCase{"stride_off_page", "/device/windows/0/offset", R"({"base": "0x3000", "stride": 2048})",
                "offset 0x3800 of slice 1 is not page aligned"},
        BadCase{"shared_page", "/device/windows/0/offset", "\"0x3000\"", "shares the page at bar4 0x3000"},
        BadCase{"overflow", "/device/windows/0/offset", R"({"base": "0xfffffffffffff000", "stride": 0})",
                "runs past 64 bits"},
        BadCase{"length_zero", "/device/windows/0/length", "0", "device.windows[0]: length 0"},
        BadCase{"region", "/device/windows/0/region", "\"bar6\"",
                "device.windows[0].region: \"bar6\" is no region"},
        BadCase{"config_mmap", "/device/windows/0/region", "\"config\"", "region config has no pages to map"},
        BadCase{"method", "/device/windows/0/methods", "[\"map\"]",
                "device.windows[0].methods[0]: \"map\" is not one of"},
        BadCase{"no_methods", "/device/windows/0/methods", "[]", "device.windows[0].methods: is empty"},
        BadCase{"access", "/device/windows/0/access", "\"x\"",
                "device.windows[0].access: \"x\" is not one of"},
        BadCase{"name_colon", "/device/windows/0/name", "\"a:b\"",
                "device.windows[0].name: \"a:b\" is no name"},
        BadCase{"name_empty", "/device/windows/0/name", "\"\"", "device.windows[0].name"},
        BadCase{"ioctl_typo", "/device/ioctls/0", "\"VFIO_DEVICE_GETINFO\"",
                "did you mean VFIO_DEVICE_GET_INFO?"},
        BadCase{"args_on_none", "/device/ioctls/1/args", R"([{"field": "index", "equals": 2}])",
                "no rule on VFIO_DEVICE_RESET can be enforced: it takes no argument"},
        BadCase{
            "args_on_answer", "/device/ioctls/0",
            R"({"name": "VFIO_DEVICE_GET_INFO", "args": [{"field": "flags", "equals": 2}]})",
            "device.ioctls[0].args: no rule on VFIO_DEVICE_GET_INFO can be enforced: it writes its answer"},
        BadCase{"args_unknown_field", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "vector", "equals": 2}]})",
                "device.ioctls[0].args[0].field: \"vector\" is no field of VFIO_DEVICE_SET_IRQS; its fields "
                "are argsz, "
                "flags, index, start, count"},
        BadCase{"args_unknown_test", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equal": 2}]})",
                "device.ioctls[0].args[0].equal: unknown key; did you mean \"equals\"?"},
        BadCase{"args_no_test", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index"}]})",
                "device.ioctls[0].args[0]: says nothing of the field"},
        BadCase{"args_two_tests", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": 1, "max": 2}]})",
                "says more than one of"},
        BadCase{"args_empty_in", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "in": []}]})",
                "device.ioctls[0].args[0].in: is empty"},
        BadCase{"args_too_wide", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": "0x100000000"}]})",
                "0x100000000 does not fit the field index, which has 4 bytes"},
        BadCase{
            "args_wide_in_a_slice", "/device/ioctls/0",
            R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": {"base": 1, "stride": "0xffffffff"}}]})",
            "of slice 1 does not fit the field index, which has 4 bytes"},
        BadCase{"args_upside_down", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "start", "min": 2, "max": 1}]})",
                "\"min\" 0x2 is above \"max\" 0x1"},
        BadCase{"args_value_outside_mask", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "count", "min": 1},
                    {"field": "flags", "mask": "0xf0", "equals": "0x21"}]})",
                "device.ioctls[0].args[1]: no value & \"mask\" 0xf0 is 0x21 (slice 0), so that no call"},
        BadCase{"args_one_of_in_outside_mask", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "flags", "mask": 1, "in": [1, 2]}]})",
                "device.ioctls[0].args[0]: no value & \"mask\" 0x1 is 0x2 (slice 0)"},
        BadCase{"args_min_above_mask", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "flags", "mask": 7, "min": 8}]})",
                "device.ioctls[0].args[0]: no value & \"mask\" 0x7 is 0x8 to 0xffffffff (slice 0)"},
        BadCase{
            "args_range_between_what_mask_leaves", "/device/ioctls/0",
            R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "flags", "mask": "0xf0", "min": "0x51", "max": "0x5f"}]})",
            "no value & \"mask\" 0xf0 is 0x51 to 0x5f (slice 0)"},
        BadCase{
            "args_outside_mask_in_a_slice", "/device/ioctls/0",
            R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "start", "mask": 3, "equals": {"base": 2, "stride": 1}}]})",
            "device.ioctls[0].args[0]: no value & \"mask\" 0x3 is 0x2 + slice × 0x1 (slice 2)"},
        BadCase{"args_unknown_name", "/device/ioctls/0",
                R"({"name": "VFIO_DEVICE_FEATURE", "args": [{"field": "direction", "equals": "put"}]})",
                "is no value of direction; known are get, set, probe, probe-get, probe-set"},
        BadCase{
            "args_too_many", "/device/ioctls/0",
            R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "start", "in": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49]}]})",
            "device.ioctls: 49 tests of arguments"},
        BadCase{"dma_size", "/device/dma/0/size", "100",
                "device.dma[0]: size 100 is not a multiple of the page size; use 4096"},
        BadCase{"dma_overlap", "/device/dma/0/iova", R"({"base": "0x10000000", "stride": "1MiB"})",
                "overlaps \"ring\" of slice 0"},
        BadCase{"iova_align", "/device/dma/0/iova", R"({"base": 1, "stride": "2MiB"})",
                "device.dma[0]: iova 0x1 of slice 0 is not page aligned"},
        BadCase{"irq_shared", "/device/irqs/0/vector", "1", "device.irqs[0]: vector 1 of msix is both"},
        BadCase{"irq_index", "/device/irqs/0/index", "\"msi-x\"", "device.irqs[0].index"},
        BadCase{"reset", "/device/reset", "\"always\"", "device.reset: \"always\" is not one of"},
        BadCase{"root", "/sandbox/root", "\"host\"", "sandbox.root: \"host\" is not one of"},
        BadCase{"root_relative", "/sandbox/root", R"({"path": "x"})",
                "sandbox.root.path: \"x\" is not an absolute path"},
        BadCase{"namespace", "/sandbox/namespaces", "[\"network\"]",
                "sandbox.namespaces: \"network\" is no namespace"},
        BadCase{"rlimit_order", "/sandbox/rlimits", R"({"nofile": [2, 1]})",
                "sandbox.rlimits.nofile: the soft limit 2 is above"},
        BadCase{"rlimit_name", "/sandbox/rlimits", R"({"nofiles": 1})",
                "sandbox.rlimits.nofiles: unknown key; did you mean \"nofile\"?"},
        BadCase{"time", "/sandbox/time_limit", "\"1 day\"",
                "sandbox.time_limit: \"1 day\" is not a duration"},
        BadCase{"id_map_alone", "/sandbox/user/uid_map", "[[0, 100000, 10]]",
                "sandbox.user: uid_map and gid_map go together"},
        BadCase{"id_map_short", "/sandbox/user/gid_map", "[[0, 1]]",
                "sandbox.user.gid_map[0]: must be [first id inside, first id outside, count]"},
        BadCase{"id_map_count", "/sandbox/user/gid_map", "[[0, 1, 0]]", "sandbox.user.gid_map[0]: must be"},
        BadCase{"id_map_large", "/sandbox/user/gid_map", "[[0, 1, 1], [4294967295, 7, 1]]",
                "sandbox.user.gid_map[1]: must be"},
        BadCase{"id_map_empty", "/sandbox/user/uid_map", "[]", "sandbox.user.uid_map: is empty"},
        BadCase{"cpu", "/sandbox/cpu_limit", "0", "sandbox.cpu_limit: must not be 0"},
        BadCase{"landlock", "/sandbox/landlock", "\"all\"", "sandbox.landlock: \"all\" is not one of"},
        BadCase{"landlock_key", "/sandbox/landlock", R"({"reads": []})",
                "sandbox.landlock.reads: unknown key; did you mean \"read\"?"},
        BadCase{"landlock_path", "/sandbox/landlock", R"({"write": ["/a", "b"]})",
                "sandbox.landlock.write[1]: \"b\" is not an absolute path"},
        BadCase{"landlock_port", "/sandbox/landlock", R"({"bind_tcp": [80, 65536]})",
                "sandbox.landlock.bind_tcp[1]: 65536 is no port"},
        BadCase{"landlock_scope", "/sandbox/landlock", R"({"scopes": ["signals"]})",
                "sandbox.landlock.scopes: \"signals\" is not one of"},
        BadCase{"env", "/sandbox/env/set", R"({"A=B": "c"})", "sandbox.env.set.A=B"},
        BadCase{"mount_type", "/sandbox/mounts", R"([{"type": "nfs", "target": "/x"}])",
                "sandbox.mounts[0].type"},
        BadCase{"mount_target", "/sandbox/mounts", R"([{"type": "tmpfs", "target": "x"}])",
                "sandbox.mounts[0].target: \"x\" is not an absolute path"},
        BadCase{"nul", "/sandbox/hostname", R"("a\u0000b")", "sandbox.hostname: must not hold a NUL"}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(Profile, LandlockListsAreAbsentOrEmpty) {
    const auto rules = [](const char* text) {
        const auto profile = read(fmt::format(R"({{"postern": 1, "sandbox": {{"landlock": {}}}}})", text));
        EXPECT_TRUE(profile) << profile.error().message;
        return profile ? profile->sandbox.landlock : LandlockRules{};
    };
    EXPECT_EQ(rules("\"auto\""), LandlockRules{});
    EXPECT_EQ(rules("{}"), LandlockRules{});
    EXPECT_EQ(rules("\"none\""), no_landlock());
    EXPECT_EQ(rules(R"({"scopes": []})"), no_landlock());
    LandlockRules some;
    some.read = std::vector<std::string>{};
    some.execute = {"/usr", "/lib"};
    some.connect_tcp = {443, 53};
    some.scope_sockets = false;
    some.require = true;
    EXPECT_EQ(
        rules(R"({"read": [], "execute": ["/usr", "/lib"], "connect_tcp": [443, "53"], "scopes": ["signal"],
                        "require": true})"),
        some);
}

TEST(Profile, SharedPagesMayBeMeant) {
    Json document = Json::parse(kGood);
    document["device"]["windows"][0]["offset"] = 0x3000;
    document["device"]["windows"][0]["shared_page"] = true;
    const auto profile = read(document.dump());
    ASSERT_TRUE(profile) << profile.error().message;
    EXPECT_THAT(weakenings(*profile), ::testing::Contains(HasSubstr("doorbell")));
}

TEST(Profile, MappedWriteOnlyWindowsCanBeRead) {
    Json document = Json::parse(kGood);
    Json& window = document["device"]["windows"][0];
    const auto found = [&](const char* access, const Json& methods) {
        window["access"] = access;
        window["methods"] = methods;
        const auto profile = read(document.dump());
        EXPECT_TRUE(profile) << profile.error().message;
        return profile ? weakenings(*profile) : std::vector<std::string>{};
    };
    const auto is_said = ::testing::Contains(
        AllOf(HasSubstr("window \"doorbell\""), HasSubstr("what can be written can be read")));
    EXPECT_THAT(found("w", {"mmap"}), is_said);
    EXPECT_THAT(found("w", {"dmabuf"}), is_said);
    EXPECT_THAT(found("w", {"pread"}), Not(is_said));
    EXPECT_THAT(found("rw", {"mmap"}), Not(is_said));
    EXPECT_THAT(found("r", {"mmap"}), Not(is_said));
    const auto is_imported =
        ::testing::Contains(AllOf(HasSubstr("window \"doorbell\""), HasSubstr("a device that imports it")));
    EXPECT_THAT(found("r", {"mmap", "dmabuf"}), is_imported);
    EXPECT_THAT(found("r", {"mmap"}), Not(is_imported));
    EXPECT_THAT(found("rw", {"mmap", "dmabuf"}), Not(is_imported));
}

TEST(Profile, SmallerThanAPageStillOwnsThePage) {
    Json document = Json::parse(kGood);
    document["device"]["windows"][0] = {{
                                            "name",
                                            "d",
                                        },
                                        {"region", "bar4"},
                                        {"offset", {{"base", 0x3000}, {"stride", 0x1000}}},
                                        {"length", 4}};
    EXPECT_TRUE(read(document.dump()));
    document["device"]["windows"].push_back({{"name", "e"},
                                             {"region", "bar4"},
                                             {"offset", {{"base", 0x4010}, {"stride", 0x1000}}},
                                             {"length", 4},
                                             {"methods", {"pread"}}});
    EXPECT_THAT(error_of(document.dump()), HasSubstr("shares the page"));
}

TEST(ProfileJson, SyntaxErrorsSayWhere) {
    EXPECT_THAT(error_of("{\n  \"postern\": 1,\n  oops\n}"),
                HasSubstr("JSON syntax error at line 3, column 3"));
    EXPECT_THAT(error_of(""), HasSubstr("JSON syntax error at line 1"));
    EXPECT_THAT(error_of("[1]"), HasSubstr("must be an object, and is an array"));
    EXPECT_THAT(error_of(R"({"postern": 1, "slices": 1, "slices": 2})"),
                HasSubstr("\"slices\" stands twice"));
    EXPECT_THAT(error_of(std::string(1000, '[') + std::string(1000, ']')), HasSubstr("nested"));
}

class ProfileFiles : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "postern-profile-XXXXXX").string();
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    std::string write(const std::string& name, const std::string& text) const {
        std::ofstream(folder_ / name) << text;
        return (folder_ / name).string();
    }
    std::filesystem::path folder_;
};

TEST_F(ProfileFiles, IncludesMergeWithLaterKeysWinning) {
    write(
        "base.json",
        R"({"postern": 1, "slices": 2, "sandbox": {"hostname": "base", "rlimits": {"nofile": 64, "core": 0}}})");
    const auto loaded = load_profile(write(
        "top.json", R"({"postern": 1, "include": ["base.json"], "sandbox": {"rlimits": {"nofile": 32}}})"));
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(loaded->profile.slices, 2U);
    EXPECT_EQ(loaded->profile.sandbox.hostname, "base");
    EXPECT_EQ(loaded->profile.sandbox.rlimits.at("nofile").first, 32U);
    EXPECT_TRUE(loaded->profile.sandbox.rlimits.contains("core"));
    EXPECT_EQ(loaded->files.size(), 2U);
}

TEST_F(ProfileFiles, CyclesAreErrors) {
    write("a.json", R"({"postern": 1, "include": ["b.json"]})");
    write("b.json", R"({"postern": 1, "include": ["a.json"]})");
    const auto loaded = load_profile((folder_ / "a.json").string());
    ASSERT_FALSE(loaded);
    EXPECT_THAT(loaded.error().message, HasSubstr("break the cycle"));
}

TEST_F(ProfileFiles, ErrorsNameTheIncludedFile) {
    write("base.json", R"({"postern": 1, "slice": 2})");
    const auto loaded = load_profile(write("top.json", R"({"postern": 1, "include": ["base.json"]})"));
    ASSERT_FALSE(loaded);
    EXPECT_THAT(loaded.error().message, HasSubstr("profile top: "));
    EXPECT_THAT(loaded.error().message, HasSubstr("base.json: slice: unknown key; did you mean \"slices\"?"));
}

TEST_F(ProfileFiles, AMissingNameSuggestsTheNearest) {
    write("virtio-blk-queue.json", R"({"postern": 1})");
    ::setenv("POSTERN_PROFILE_PATH", folder_.c_str(), 1);
    const auto missing = load_profile("virtio-blk-quue");
    const auto found = load_profile("virtio-blk-queue");
    ::unsetenv("POSTERN_PROFILE_PATH");
    ASSERT_FALSE(missing);
    EXPECT_THAT(missing.error().message, HasSubstr("did you mean virtio-blk-queue?"));
    EXPECT_TRUE(found);
}

/// What check_profile says of a profile of these files, or read_profile before it.
std::string error_of_files(const std::string& files, unsigned slices = 1) {
    const auto profile = read(fmt::format(R"({{"postern": 1, "slices": {}, "files": [{}]}})", slices, files));
    if (!profile) return profile.error().message;
    const Status checked = check_profile(*profile);
    return checked ? "no error" : checked.error().message;
}

TEST(Files, AreReadAsDevicesAre) {
    const auto profile = read(R"({"postern": 1, "files": [
        {"name": "gpu", "path": "/dev/dri/renderD128", "access": "r", "forward": "never",
         "ioctls": ["0xc0406400", {"name": "IOMMU_IOAS_MAP", "args": [{"field": "flags", "equals": 7}]}]},
        {"name": "pages", "fd": 7, "windows": [{"name": "w", "offset": "4KiB", "length": 8, "methods": ["pread"]}]},
        {"name": "more", "fd": "pages"}]})");
    ASSERT_TRUE(profile) << profile.error().message;
    ASSERT_EQ(profile->files.size(), 3U);
    const FileProfile& gpu = profile->files[0];
    EXPECT_EQ(gpu.path, "/dev/dri/renderD128");
    EXPECT_TRUE(gpu.access.read && !gpu.access.write);
    EXPECT_EQ(gpu.forward, Forward::Never);
    ASSERT_EQ(gpu.ioctls.size(), 2U);
    EXPECT_EQ(gpu.ioctls[0].number, 0xc0406400U);
    EXPECT_EQ(gpu.ioctls[1].args.size(), 1U);
    EXPECT_EQ(profile->files[1].fd, "7");
    EXPECT_TRUE(profile->files[1].windows[0].by_pread && !profile->files[1].windows[0].by_mmap);
    EXPECT_EQ(profile->files[2].fd, "pages");
    EXPECT_TRUE(check_profile(*profile));
}

TEST(Files, AreRefusedWithTheirPath) {
    const std::string window = R"("windows": [{"name": "w", "offset": 0, "length": 4096}])";
    const std::string good = R"({"name": "a", "path": "/dev/kvm", )" + window + "}";
    EXPECT_EQ(error_of_files(good), "no error");
    for (
        const auto& [files, says] : std::initializer_list<std::pair<std::string, const char*>>{
            {R"({"name": "a"})", "files[0]: needs one of \"path\""},
            {R"({"name": "a", "path": "/dev/kvm", "fd": 3})", "files[0]: needs one of"},
            {R"({"name": "a", "path": "kvm"})", "files[0].path: \"kvm\" is not an absolute path"},
            {R"({"name": "a", "fd": 3, "access": "r"})", "files[0].access: is only for \"path\""},
            {good + "," + good, "files[1].name: \"a\" stands twice"},
            {R"({"name": "a", "fd": 3, "ioctls": ["KVM_GET_API_VERSIO"]})",
             "did you mean KVM_GET_API_VERSION?"},
            {R"({"name": "a", "fd": 3, "windows": [{"name": "w", "offset": 8, "length": 8}]})",
             "files[0].windows[0]: offset 0x8 is not page aligned"},
            {R"({"name": "a", "fd": 3, "windows": [{"name": "w", "offset": 0, "length": 8, "region": "bar0"}]})",
             "files[0].windows[0].region"}}) {
        EXPECT_THAT(error_of_files(files), HasSubstr(says)) << files;
    }
}

TEST(Files, OfSeveralSlicesShareNothingUnsaid) {
    const auto file = [](const std::string& source, const std::string& offset, const std::string& more) {
        return R"({"name": "a", )" + source + R"(, "windows": [{"name": "w", "length": 4096, "offset": )" +
               offset + more + "}]}";
    };
    const std::string path = R"("path": "/dev/mem")";
    EXPECT_THAT(error_of_files(file(path, "0", ""), 2),
                HasSubstr("files[0].windows[0]: in slice 1 the window \"w\" shares"));
    EXPECT_EQ(error_of_files(file(path, "0", R"(, "shared_page": true)"), 2), "no error");
    EXPECT_EQ(error_of_files(file(path, R"({"base": 0, "stride": 4096})", ""), 2), "no error");
    EXPECT_THAT(error_of_files(file(R"("fd": 3)", R"({"base": 0, "stride": 4096})", ""), 2),
                HasSubstr("files[0].fd: one open file has one policy"));
}

TEST(Files, OfMemoryAreNotBesideItsOtherUsers) {
    const std::string memory = R"({"name": "m", "fd": 3})";
    for (const char* name : {"UDMABUF_CREATE", "UDMABUF_CREATE_LIST", "IOMMU_IOAS_MAP_FILE", "0x40187542"}) {
        const std::string maker = fmt::format(R"({{"name": "u", "path": "/dev/x", "ioctls": ["{}"]}})", name);
        EXPECT_THAT(error_of_files(memory + "," + maker), HasSubstr("past its windows; grant one of the two"))
            << name;
        EXPECT_EQ(error_of_files(maker), "no error") << name;
    }
    EXPECT_EQ(error_of_files(memory + R"(,{"name": "u", "path": "/dev/x", "ioctls": ["IOMMU_IOAS_MAP"]})"),
              "no error");
    const auto beside = [](const std::string& files) {
        Json document = Json::parse(kGood);
        document["slices"] = 1;
        document["device"]["dma_map"] = {{"iova", "0x4000000000"}, {"size", "1MiB"}};
        document["files"] = Json::parse(files);
        const auto profile = read(document.dump());
        return profile ? std::string("no error") : profile.error().message;
    };
    EXPECT_THAT(beside("[" + memory + "]"), HasSubstr("device.dma_map: IOMMU_IOAS_MAP_FILE takes the whole"));
    EXPECT_EQ(beside(R"([{"name": "m", "path": "/dev/x"}])"), "no error");
}

TEST(Files, DangersAreNamedByNumberToo) {
    for (const char* name : {"IOMMU_IOAS_MAP", "0x3b85"}) {
        const auto profile = read(fmt::format(
            R"({{"postern": 1, "files": [{{"name": "a", "path": "/dev/iommu", "ioctls": ["{}"]}}]}})", name));
        ASSERT_TRUE(profile) << profile.error().message;
        EXPECT_EQ(weakenings(*profile).size(), find_ioctl("IOMMU_IOAS_MAP")->danger.empty() ? 0U : 1U)
            << name;
    }
    const auto reset =
        read(R"({"postern": 1, "files": [{"name": "a", "path": "/dev/x", "ioctls": ["0x3b6f"]}]})");
    ASSERT_TRUE(reset) << reset.error().message;
    EXPECT_THAT(weakenings(*reset), testing::ElementsAre(HasSubstr("files[0].ioctls grants 0x3b6f")));
}

TEST(Files, WeakeningsAreNamed) {
    const auto profile = read(R"({"postern": 1, "files": [
        {"name": "a", "path": "/dev/mem", "forward": "anyone", "windows": [{"name": "w", "offset": 0, "length": 1, "access": "w"}]}]})");
    ASSERT_TRUE(profile) << profile.error().message;
    EXPECT_THAT(weakenings(*profile), testing::ElementsAre(HasSubstr("window \"w\" has access \"w\""),
                                                           HasSubstr("files[0].forward is \"anyone\"")));
}

}  // namespace
}  // namespace postern
