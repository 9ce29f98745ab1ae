// SPDX-License-Identifier: Apache-2.0
//
// What usually keeps a sandbox from being made: each obstacle is put up for real, and the message has to say
// which one it is. Beside each, the same launch without it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>

#include "launcher/cgroup.h"
#include "tests/root/sandbox_fixture.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

bool write_to(const char* path, const char* text) {
    std::ofstream file(path);
    file << text << std::flush;
    return file.good();
}

bool become_user() {
    // A change of ids leaves /proc/self root's; exec would restore that.
    return ::setgroups(0, nullptr) == 0 && ::setgid(1234) == 0 && ::setuid(1234) == 0 &&
           ::prctl(PR_SET_DUMPABLE, 1) == 0;
}

bool own_mounts() {
    return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

/// root in a user namespace, in which `limit` more may be made.
bool with_limit(const char* limit) {
    return ::unshare(CLONE_NEWUSER) == 0 && write_to("/proc/self/setgroups", "deny") &&
           write_to("/proc/self/uid_map", "0 0 1") && write_to("/proc/self/gid_map", "0 0 1") &&
           write_to("/proc/sys/user/max_user_namespaces", limit);
}

class LaunchObstacle : public SandboxTest {
  protected:
    /// What `act` returns, in a process of its own.
    static std::string said(const std::function<std::string()>& act) {
        const UniqueFd file(::memfd_create("said", MFD_CLOEXEC));
        const pid_t child = ::fork();
        if (child == 0) {
            const std::string text = act();
            ::_exit(::write(file.get(), text.data(), text.size()) < 0 ? 98 : 0);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        EXPECT_EQ(status, 0);
        char text[2048] = {};
        return ::pread(file.get(), text, sizeof text - 1, 0) >= 0 ? text : "";
    }
    /// The error of a launch behind `obstacle`, or "status N".
    static std::string launch(const std::function<bool()>& obstacle, const SandboxSpec& spec) {
        return said([&]() -> std::string {
            if (!obstacle()) return "the obstacle cannot be put up";
            auto client = start_sandbox(spec);
            if (!client) return client.error().error.message;
            return "status " + std::to_string(client->wait().status());
        });
    }
};

TEST_F(LaunchObstacle, UserNamespacesSwitchedOffBySysctl) {
    EXPECT_THAT(launch([] { return with_limit("0"); }, shell("exit 3")),
                HasSubstr("user namespaces are switched off: sysctl user.max_user_namespaces="));
    EXPECT_EQ(launch([] { return with_limit("10"); }, shell("exit 3")), "status 3");
}

TEST_F(LaunchObstacle, ProcIsMaskedAsInAContainer) {
    const auto masked = [] { return own_mounts() && ::mount("none", "/proc/sys", "tmpfs", 0, nullptr) == 0; };
    EXPECT_THAT(launch(masked, shell("exit 3")), HasSubstr("part of /proc is covered on this machine"));
    EXPECT_EQ(launch(own_mounts, shell("exit 3")), "status 3");
}

TEST_F(LaunchObstacle, NoCgroupIsDelegated) {
    const auto make = [](bool as_user) {
        return said([&]() -> std::string {
            if (as_user && !become_user()) return "no user";
            auto cgroup = Cgroup::create(std::to_string(::getpid()), {});
            return cgroup ? "made" : cgroup.error().message;
        });
    };
    EXPECT_THAT(make(true), HasSubstr("not delegated to the launcher: systemd-run --user --scope"));
    EXPECT_EQ(make(false), "made");
}

TEST_F(LaunchObstacle, TheSourceOfABindIsMissing) {
    SandboxSpec spec = shell("exit 3");
    spec.mounts = {{Mount::Type::Bind, folder() / "missing", "/tmp/x", {}}};
    for (const auto& who : {std::function<bool()>(become_user), std::function<bool()>(own_mounts)}) {
        EXPECT_THAT(launch(who, spec), HasSubstr("missing on /tmp/x"));
        EXPECT_THAT(launch(who, spec), HasSubstr("create the source, or add the option \"optional\""));
    }
    std::filesystem::create_directory(folder() / "missing");
    EXPECT_EQ(launch(become_user, spec), "status 3");
}

TEST_F(LaunchObstacle, TheSourceIsOnANosuidMount) {
    SandboxSpec spec = shell("exit 3");
    spec.mounts = {{Mount::Type::Bind, folder(), "/tmp/x", {"suid"}}};
    const auto mounted = [this](unsigned long flags) {
        return own_mounts() && ::mount("none", folder().c_str(), "tmpfs", flags, "mode=0755") == 0;
    };
    for (const bool as_user : {false, true}) {
        const auto with = [&](unsigned long flags) {
            return launch([&] { return mounted(flags) && (!as_user || become_user()); }, spec);
        };
        EXPECT_THAT(with(MS_NOSUID), HasSubstr("on a mount that is nosuid on the host"));
        EXPECT_EQ(with(0), "status 3");
    }
}

}  // namespace
}  // namespace postern
