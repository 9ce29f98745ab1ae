// SPDX-License-Identifier: Apache-2.0
#include "launcher/bwrap_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker-core/unique_fd.h"
#include "launcher/mount_plan.h"

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Words = std::vector<std::string>;

BwrapCaller root_caller() {
    return {.uid = 0,
            .gid = 0,
            .folder = "/home/user",
            .environment = {"PATH=/bin", "HOME=/root", "A=1"},
            .terminal = "",
            .can_make_user_namespaces = true,
            .capabilities = {0, 1, 5}};
}

BwrapCaller user_caller() {
    BwrapCaller caller = root_caller();
    caller.uid = caller.gid = 1000;
    caller.capabilities = {};
    return caller;
}

SandboxSpec spec_of(const Words& words, const BwrapCaller& caller = root_caller()) {
    auto request = parse_bwrap(words, caller);
    EXPECT_TRUE(request) << (request ? "" : request.error().message);
    return request ? request->spec : SandboxSpec();
}

std::string error_of(const Words& words, const BwrapCaller& caller = root_caller()) {
    auto request = parse_bwrap(words, caller);
    EXPECT_FALSE(request);
    return request ? "" : request.error().message;
}

TEST(BwrapOptions, OperationsKeepTheirOrder) {
    const SandboxSpec spec =
        spec_of({"--ro-bind", "/", "/", "--tmpfs", "/tmp", "--perms", "0700", "--dir", "/tmp/a", "--bind-try",
                 "here", "/tmp/a/b", "--remount-ro", "/tmp", "--", "true", "--tmpfs"});
    ASSERT_EQ(spec.mounts.size(), 5U);
    EXPECT_EQ(spec.mounts[0].type, Mount::Type::Bind);
    EXPECT_THAT(spec.mounts[0].options, ElementsAre("ro"));
    EXPECT_EQ(spec.mounts[1].type, Mount::Type::Tmpfs);
    EXPECT_THAT(spec.mounts[1].options, ElementsAre("mode=755"));
    EXPECT_EQ(spec.mounts[2].type, Mount::Type::Directory);
    EXPECT_THAT(spec.mounts[2].options, ElementsAre("mode=700"));
    EXPECT_EQ(spec.mounts[3].source, "/home/user/here");
    EXPECT_THAT(spec.mounts[3].options, ElementsAre("rw", "optional"));
    EXPECT_EQ(spec.mounts[4].type, Mount::Type::Ro);
    EXPECT_THAT(spec.argv, ElementsAre("true", "--tmpfs"));
}

TEST(BwrapOptions, ABindOnTheRootIsTheRoot) {
    const auto plan = make_mount_plan(spec_of({"--ro-bind", "/", "/", "--tmpfs", "/tmp", "true"}));
    ASSERT_TRUE(plan);
    EXPECT_FALSE(plan->root_is_tmpfs);
    EXPECT_EQ(plan->root_source, "/");
    EXPECT_FALSE(plan->is_host_root);
    EXPECT_EQ(plan->steps.size(), 1U);
    // Anything before it keeps it where it stands.
    const auto second = make_mount_plan(spec_of({"--tmpfs", "/tmp", "--ro-bind", "/", "/", "true"}));
    ASSERT_TRUE(second);
    EXPECT_TRUE(second->root_is_tmpfs);
    EXPECT_EQ(second->steps.size(), 2U);
}

TEST(BwrapOptions, NothingIsUnsharedUnasked) {
    const SandboxSpec spec = spec_of({"true"});
    EXPECT_EQ(spec.namespaces, (Namespaces{false, false, true, false, false, false, false, false}));
    EXPECT_TRUE(spec.keep_capabilities);
    EXPECT_TRUE(spec.seccomp.empty());
    EXPECT_EQ(spec.uid, 0U);
    EXPECT_FALSE(spec.new_session);
}

TEST(BwrapOptions, AnOrdinaryUserGetsAUserNamespaceAndNoCapabilities) {
    const SandboxSpec spec = spec_of({"--unshare-all", "--share-net", "true"}, user_caller());
    EXPECT_EQ(spec.namespaces, (Namespaces{true, true, true, false, true, true, true, false}));
    EXPECT_FALSE(spec.keep_capabilities);
    EXPECT_THAT(spec.capabilities, IsEmpty());
    EXPECT_EQ(spec.uid, 1000U);
    EXPECT_FALSE(spec.loopback_up);
}

TEST(BwrapOptions, UserNamespacesAreOnlyTried) {
    BwrapCaller caller = root_caller();
    EXPECT_TRUE(spec_of({"--unshare-user-try", "true"}, caller).namespaces.user);
    caller.can_make_user_namespaces = false;
    EXPECT_FALSE(spec_of({"--unshare-user-try", "true"}, caller).namespaces.user);
    EXPECT_TRUE(spec_of({"--unshare-user", "true"}, caller).namespaces.user);
}

TEST(BwrapOptions, CapabilitiesBeginWithTheCallers) {
    EXPECT_THAT(spec_of({"--cap-drop", "CAP_KILL", "true"}).capabilities, ElementsAre(0U, 1U));
    EXPECT_THAT(spec_of({"--cap-drop", "ALL", "true"}).capabilities, IsEmpty());
    EXPECT_FALSE(spec_of({"--cap-drop", "ALL", "true"}).keep_capabilities);
    EXPECT_THAT(spec_of({"--cap-drop", "all", "--cap-add", "cap_net_raw", "true"}).capabilities,
                ElementsAre(13U));
    EXPECT_EQ(
        spec_of({"--cap-add", "ALL", "--cap-drop", "CAP_CHOWN", "true"}, user_caller()).capabilities.size(),
        40U);
    EXPECT_THAT(error_of({"--cap-add", "CAP_NONE", "true"}), HasSubstr("unknown cap: CAP_NONE"));
}

TEST(BwrapOptions, TheEnvironmentIsTheCallersAsChanged) {
    EXPECT_THAT(spec_of({"--setenv", "A", "2", "--unsetenv", "HOME", "true"}).env,
                ElementsAre("PATH=/bin", "A=2"));
    EXPECT_THAT(spec_of({"--clearenv", "--setenv", "B", "", "true"}).env, ElementsAre("B="));
    EXPECT_THAT(error_of({"--setenv", "A=B", "2", "true"}), HasSubstr("no name"));
}

TEST(BwrapOptions, LayersComeTopFirstAndEscaped) {
    const SandboxSpec spec = spec_of(
        {"--overlay-src", "/a:b", "--overlay-src", "/c", "--overlay", "/up,per", "/work", "/mnt", "true"});
    ASSERT_EQ(spec.mounts.size(), 1U);
    const auto plan = make_mount_plan(spec);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_THAT(plan->steps[0].lower, ElementsAre("/c", "/a:b"));
    EXPECT_EQ(plan->steps[0].upper, "/up,per");
    EXPECT_EQ(plan->steps[0].work, "/work");
    EXPECT_THAT(error_of({"--overlay-src", "/a", "--ro-overlay", "/m", "true"}),
                HasSubstr("at least two --overlay-src"));
    EXPECT_THAT(error_of({"--overlay-src", "/a", "--tmpfs", "/m", "true"}),
                HasSubstr("--overlay-src must be followed by"));
    EXPECT_THAT(error_of({"--overlay-src", "/a"}), HasSubstr("--overlay-src must be followed by"));
}

TEST(BwrapOptions, ArgumentsOfAFile) {
    const UniqueFd file(::memfd_create("args", 0));
    const std::string text("--dir\0/x y\0--clearenv", 21);
    ASSERT_EQ(::write(file.get(), text.data(), text.size()), 21);
    ASSERT_EQ(::lseek(file.get(), 0, SEEK_SET), 0);
    const int fd = ::dup(file.get());  // parse_bwrap() closes what it has read
    const SandboxSpec spec = spec_of({"--args", std::to_string(fd), "true"});
    ASSERT_EQ(spec.mounts.size(), 1U);
    EXPECT_EQ(spec.mounts[0].target, "/x y");
    EXPECT_THAT(spec.env, IsEmpty());
    EXPECT_THAT(error_of({"--args", std::to_string(fd), "true"}), HasSubstr("is not open"));
}

TEST(BwrapOptions, WhatCannotBeIsRefused) {
    const std::pair<Words, const char*> refusals[] = {
        {{"--bind", "/a"}, "--bind takes two arguments"},
        {{"--no-such", "true"}, "Unknown option --no-such"},
        {{"--uid", "5", "true"}, "Specifying --uid requires --unshare-user"},
        {{"--uid", "-5", "true"}, "Invalid uid: -5"},
        {{"--hostname", "x", "true"}, "--hostname requires --unshare-uts"},
        {{"--as-pid-1", "true"}, "--as-pid-1 requires --unshare-pid"},
        {{"--disable-userns", "true"}, "--disable-userns requires --unshare-user"},
        {{"--perms", "0700", "--proc", "/proc", "true"}, "--perms must be followed"},
        {{"--perms", "0788", "--dir", "/x", "true"}, "octal argument"},
        {{"--size", "0", "--tmpfs", "/x", "true"}, "non-zero number of bytes"},
        {{"--size", "-1", "--tmpfs", "/x", "true"}, "non-zero number of bytes"},
        {{"--size", "18446744073709551616", "--tmpfs", "/x", "true"}, "non-zero number of bytes"},
        {{"--size", "4096", "--dir", "/x", "true"}, "--size must be followed by --tmpfs"},
        {{"--exec-label", "x", "true"}, "labeling is not supported"},
        {{"--seccomp", "5000", "true"}, "fd 5000 is not open"},
    };
    for (const auto& [words, says] : refusals) EXPECT_THAT(error_of(words), HasSubstr(says));
    // The controls.
    EXPECT_EQ(spec_of({"--unshare-user", "--uid", "5", "--disable-userns", "true"}).uid, 5U);
    EXPECT_TRUE(spec_of({"--unshare-pid", "--as-pid-1", "true"}).as_pid_1);
    EXPECT_EQ(spec_of({"--unshare-uts", "--hostname", "x", "true"}).hostname, "x");
    EXPECT_THAT(spec_of({"--perms", "1777", "--size", "0x1000", "--tmpfs", "/x", "true"}).mounts[0].options,
                ElementsAre("mode=1777", "size=4096"));
}

TEST(BwrapOptions, TheLastOneCountsAndThatIsSaid) {
    const auto request = parse_bwrap({"--chdir", "/a", "--chdir", "/b", "true"}, root_caller());
    ASSERT_TRUE(request);
    EXPECT_EQ(request->spec.cwd, "/b");
    EXPECT_THAT(request->warnings, ElementsAre("Only the last --chdir option will take effect"));
}

}  // namespace
}  // namespace postern
