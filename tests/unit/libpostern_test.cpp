// SPDX-License-Identifier: Apache-2.0
// The C API without a device: arguments, policies and profiles that are refused, with what is taken beside
// them.
#include "libpostern/libpostern.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <thread>

#include "libpostern/libpostern.hpp"

namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr unsigned kReadWrite = LIBPOSTERN_READ | LIBPOSTERN_WRITE;

/// A number and the line that goes with it.
void expect_refused(int result, int errnum, const std::string& words) {
    EXPECT_EQ(result, -errnum) << libpostern_error();
    EXPECT_THAT(libpostern_error(), HasSubstr(words));
    EXPECT_EQ(std::string_view(libpostern_error()).find('\n'), std::string_view::npos);
}

class Library : public testing::Test {
  protected:
    void SetUp() override { ASSERT_EQ(libpostern_new(&context), 0); }
    void TearDown() override { EXPECT_EQ(libpostern_free(context), 0); }
    libpostern_context* context = nullptr;
};

class Policy : public testing::Test {
  protected:
    void SetUp() override { ASSERT_EQ(libpostern_policy_new(&policy), 0); }
    void TearDown() override { libpostern_policy_free(policy); }
    libpostern_policy* policy = nullptr;
};

int parse(libpostern_profile** profile, std::string_view text) {
    return libpostern_profile_parse(profile, text.data(), text.size(), nullptr);
}

TEST_F(Library, SaysItsVersion) {
    EXPECT_STREQ(libpostern_version(), POSTERN_VERSION);
}

TEST_F(Library, NullsAreNamed) {
    libpostern_device* device = nullptr;
    libpostern_grant* grant = nullptr;
    expect_refused(libpostern_new(nullptr), EINVAL, "context is NULL");
    expect_refused(libpostern_device_open(nullptr, "0000:00:00.0", &device), EINVAL, "context is NULL");
    expect_refused(libpostern_device_open(context, nullptr, &device), EINVAL, "bdf is NULL");
    expect_refused(libpostern_device_open(context, "0000:00:00.0", nullptr), EINVAL, "device is NULL");
    expect_refused(libpostern_device_enable(nullptr), EINVAL, "device is NULL");
    expect_refused(libpostern_grant_new(context, nullptr, 0, nullptr), EINVAL, "grant is NULL");
    expect_refused(libpostern_grant_new(nullptr, nullptr, 0, &grant), EINVAL, "context is NULL");
    expect_refused(libpostern_grant_vend(nullptr, 0), EINVAL, "grant is NULL");
    expect_refused(libpostern_grant_wait(nullptr, 0, nullptr), EINVAL, "grant is NULL");
    expect_refused(libpostern_profile_load(nullptr, "default"), EINVAL, "profile is NULL");
    expect_refused(libpostern_policy_ioctl(nullptr, "VFIO_DEVICE_RESET"), EINVAL, "policy is NULL");
    EXPECT_EQ(libpostern_device_fd(nullptr), -1);
    EXPECT_EQ(libpostern_grant_id(nullptr), nullptr);
    EXPECT_EQ(libpostern_profile_slices(nullptr), 0U);
    EXPECT_STREQ(libpostern_profile_weakenings(nullptr), "");
}

TEST_F(Library, EndingNothingIsFine) {
    EXPECT_EQ(libpostern_free(nullptr), 0);
    EXPECT_EQ(libpostern_device_close(nullptr), 0);
    EXPECT_EQ(libpostern_grant_end(nullptr), 0);
    libpostern_profile_free(nullptr);
    libpostern_policy_free(nullptr);
}

TEST_F(Library, DevicesThatAreNoneAreRefused) {
    libpostern_device* device = nullptr;
    EXPECT_LT(libpostern_device_open(context, "nonsense", &device), 0);
    EXPECT_THAT(libpostern_error(), HasSubstr("nonsense"));
    EXPECT_LT(libpostern_device_open(context, "ffff:ff:1f.7", &device), 0);
    EXPECT_THAT(libpostern_error(), HasSubstr("ffff:ff:1f.7"));
    EXPECT_EQ(device, nullptr);
}

TEST_F(Library, ErrorsAreTheThreadsOwn) {
    EXPECT_LT(libpostern_new(nullptr), 0);
    std::thread([] { EXPECT_STREQ(libpostern_error(), ""); }).join();
    EXPECT_THAT(libpostern_error(), HasSubstr("context is NULL"));
}

TEST_F(Library, AForkedChildMayNotUseIt) {
    const pid_t child = ::fork();
    if (child == 0) {
        libpostern_device* device = nullptr;
        const bool refused = libpostern_device_open(context, "0000:00:00.0", &device) == -EINVAL &&
                             std::string(libpostern_error()).find("forked") != std::string::npos &&
                             libpostern_free(context) == -EINVAL;
        ::_exit(refused ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST_F(Library, SeveralContexts) {
    libpostern_context* other = nullptr;
    ASSERT_EQ(libpostern_new(&other), 0);
    EXPECT_NE(other, context);
    EXPECT_EQ(libpostern_free(other), 0);
}

TEST(LibraryProfile, ByNameByFileByText) {
    libpostern_profile* profile = nullptr;
    ASSERT_EQ(libpostern_profile_load(&profile, "virtio-blk-queue"), 0) << libpostern_error();
    EXPECT_EQ(libpostern_profile_slices(profile), 4U);
    libpostern_profile_free(profile);
    ASSERT_EQ(parse(&profile, R"({"postern": 1, "slices": 3})"), 0) << libpostern_error();
    EXPECT_EQ(libpostern_profile_slices(profile), 3U);
    EXPECT_STREQ(libpostern_profile_weakenings(profile), "");
    libpostern_profile_free(profile);
}

TEST(LibraryProfile, WeakeningsAreTold) {
    libpostern_profile* profile = nullptr;
    ASSERT_EQ(parse(&profile, R"({"postern": 1, "sandbox": {"seccomp": "none"}})"), 0) << libpostern_error();
    EXPECT_THAT(libpostern_profile_weakenings(profile), HasSubstr("seccomp"));
    libpostern_profile_free(profile);
}

TEST(LibraryProfile, BadOnesAreRefused) {
    libpostern_profile* profile = nullptr;
    EXPECT_LT(libpostern_profile_load(&profile, "no-such-profile"), 0);
    EXPECT_THAT(libpostern_error(), HasSubstr("no-such-profile"));
    EXPECT_LT(parse(&profile, "{"), 0);
    EXPECT_LT(parse(&profile, R"({"postern": 1, "sandbix": {}})"), 0);
    EXPECT_THAT(libpostern_error(), HasSubstr("sandbix"));
    expect_refused(parse(&profile, R"({"postern": 1, "include": ["base/polling-client.json"]})"), EINVAL,
                   "include");
    EXPECT_EQ(profile, nullptr);
}

TEST_F(Policy, WindowsAreChecked) {
    EXPECT_EQ(libpostern_policy_window(policy, "registers", 0, 0, 4096, kReadWrite | LIBPOSTERN_MMAP), 0)
        << libpostern_error();
    expect_refused(libpostern_policy_window(policy, "a", 0, 4096, 4096, LIBPOSTERN_MMAP), EINVAL, "no right");
    expect_refused(libpostern_policy_window(policy, "a", 0, 4096, 4096, kReadWrite), EINVAL, "no way");
    expect_refused(libpostern_policy_window(policy, "a", 0, 4096, 4096, kReadWrite | 0x1000), EINVAL,
                   "0x1000");
    expect_refused(libpostern_policy_window(policy, nullptr, 0, 4096, 4096, kReadWrite | LIBPOSTERN_MMAP),
                   EINVAL, "name");
    expect_refused(libpostern_policy_window(policy, "registers", 0, 4096, 4096, kReadWrite | LIBPOSTERN_MMAP),
                   EINVAL, "registers");
    expect_refused(libpostern_policy_window(policy, "a", 0, 0x801, 4096, kReadWrite | LIBPOSTERN_MMAP),
                   EINVAL, "0x801");
    expect_refused(libpostern_policy_window(policy, "a", 77, 0, 4096, kReadWrite | LIBPOSTERN_MMAP), EINVAL,
                   "region");
    // A refused one has changed nothing.
    EXPECT_EQ(libpostern_policy_window(policy, "a", 0, 4096, 4096, kReadWrite | LIBPOSTERN_PREAD), 0)
        << libpostern_error();
}

TEST_F(Policy, IoctlsAreChecked) {
    EXPECT_EQ(libpostern_policy_ioctl(policy, "VFIO_DEVICE_GET_INFO"), 0) << libpostern_error();
    EXPECT_EQ(libpostern_policy_ioctl(
                  policy, R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": 2}]})"),
              0)
        << libpostern_error();
    EXPECT_LT(libpostern_policy_ioctl(policy, "VFIO_DEVICE_GET_INFA"), 0);
    EXPECT_THAT(libpostern_error(), HasSubstr("VFIO_DEVICE_GET_INFA"));
    EXPECT_LT(libpostern_policy_ioctl(policy, R"({"name": )"), 0);
    EXPECT_LT(libpostern_policy_ioctl(
                  policy, R"({"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "indx", "equals": 2}]})"),
              0);
    EXPECT_THAT(libpostern_error(), HasSubstr("indx"));
}

TEST_F(Policy, ForwardIsChecked) {
    EXPECT_EQ(libpostern_policy_forward(policy, LIBPOSTERN_FORWARD_ANYONE), 0);
    // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): what C may pass
    expect_refused(libpostern_policy_forward(policy, static_cast<libpostern_forward>(3)), EINVAL,
                   "forward 3");
}

TEST(PolicyOfProfile, IsTheProfiles) {
    libpostern_profile* profile = nullptr;
    libpostern_policy* policy = nullptr;
    ASSERT_EQ(parse(&profile, R"({"postern": 1, "slices": 2, "device": {"windows": [
        {"name": "w", "region": "bar0", "offset": {"base": 0, "stride": 4096}, "length": 4096, "access": "rw", "methods": ["mmap"]}]}})"),
              0)
        << libpostern_error();
    ASSERT_EQ(libpostern_policy_from_profile(&policy, profile, 1), 0) << libpostern_error();
    expect_refused(libpostern_policy_ioctl(policy, "VFIO_DEVICE_GET_INFO"), EINVAL, "policy of a profile");
    libpostern_policy_free(policy);
    policy = nullptr;
    expect_refused(libpostern_policy_from_profile(&policy, profile, 2), EINVAL, "slice 2 of 2");
    libpostern_profile_free(profile);
    EXPECT_EQ(policy, nullptr);
}

TEST(PolicyOfProfile, WhatTheCallerHasToDoIsNotLeftOutInSilence) {
    libpostern_profile* profile = nullptr;
    libpostern_policy* policy = nullptr;
    ASSERT_EQ(libpostern_profile_load(&profile, "virtio-blk-queue"), 0);
    expect_refused(libpostern_policy_from_profile(&policy, profile, 0), ENOTSUP, "device.dma");
    libpostern_profile_free(profile);
    ASSERT_EQ(parse(&profile, R"({"postern": 1, "device": {"reset": "before"}})"), 0) << libpostern_error();
    expect_refused(libpostern_policy_from_profile(&policy, profile, 0), ENOTSUP, "device.reset");
    libpostern_profile_free(profile);
    ASSERT_EQ(parse(&profile, R"({"postern": 1})"), 0) << libpostern_error();
    expect_refused(libpostern_policy_from_profile(&policy, profile, 0), EINVAL, "no \"device\" part");
    libpostern_profile_free(profile);
}

TEST(LibraryInCpp, ErrorsAreExceptions) {
    const libpostern::Context postern;
    const libpostern::Profile profile = libpostern::Profile::parse(R"({"postern": 1, "slices": 5})");
    EXPECT_EQ(profile.slices(), 5U);
    libpostern::Policy policy;
    policy.window("w", 0, 0, 4096, kReadWrite | LIBPOSTERN_MMAP)
        .ioctl("VFIO_DEVICE_GET_INFO")
        .forward(LIBPOSTERN_FORWARD_NEVER);
    try {
        policy.window("w", 0, 8192, 4096, kReadWrite | LIBPOSTERN_MMAP);
        ADD_FAILURE() << "two windows of one name";
    } catch (const libpostern::Error& error) {
        EXPECT_EQ(error.code(), std::errc::invalid_argument);
        EXPECT_THAT(error.what(), HasSubstr("\"w\""));
    }
}

}  // namespace
