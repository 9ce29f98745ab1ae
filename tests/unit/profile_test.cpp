// SPDX-License-Identifier: Apache-2.0
#include "broker-core/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "broker-core/profile_reader.h"

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
        BadCase{"ioctl_args", "/device/ioctls/1/args", R"([{"field": "index", "equals": 2}])",
                "device.ioctls[1].args: this version of postern does not enforce"},
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
        BadCase{"env", "/sandbox/env/set", R"({"A=B": "c"})", "sandbox.env.set.A=B"},
        BadCase{"mount_type", "/sandbox/mounts", R"([{"type": "nfs", "target": "/x"}])",
                "sandbox.mounts[0].type"},
        BadCase{"mount_target", "/sandbox/mounts", R"([{"type": "tmpfs", "target": "x"}])",
                "sandbox.mounts[0].target: \"x\" is not an absolute path"},
        BadCase{"nul", "/sandbox/hostname", R"("a\u0000b")", "sandbox.hostname: must not hold a NUL"}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(Profile, SharedPagesMayBeMeant) {
    Json document = Json::parse(kGood);
    document["device"]["windows"][0]["offset"] = 0x3000;
    document["device"]["windows"][0]["shared_page"] = true;
    const auto profile = read(document.dump());
    ASSERT_TRUE(profile) << profile.error().message;
    EXPECT_THAT(weakenings(*profile), ::testing::Contains(HasSubstr("doorbell")));
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

}  // namespace
}  // namespace postern
