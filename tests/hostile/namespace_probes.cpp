// SPDX-License-Identifier: Apache-2.0
// Other namespaces: those of others to enter, new ones to be root in.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"
#include "tests/support/passing.h"

namespace postern::hostile {
namespace {

struct Kind {
    const char* name;   ///< as in /proc/PID/ns
    const char* named;  ///< as in the probe's name
    uint64_t flag;
};

constexpr Kind kKinds[] = {
    {"user", "user", CLONE_NEWUSER},       {"mnt", "mount", CLONE_NEWNS},   {"net", "net", CLONE_NEWNET},
    {"pid", "pid", CLONE_NEWPID},          {"ipc", "ipc", CLONE_NEWIPC},    {"uts", "uts", CLONE_NEWUTS},
    {"cgroup", "cgroup", CLONE_NEWCGROUP}, {"time", "time", CLONE_NEWTIME},
};

/// The namespaces of pid 1, of the launcher, of oneself (which takes the same right) and by any process in
/// sight.
Attempt enter(const Target& target, const Kind& kind) {
    std::vector<std::string> paths{fmt::format("/proc/1/ns/{}", kind.name)};
    if (target.launcher > 1) paths.push_back(fmt::format("/proc/{}/ns/{}", target.launcher, kind.name));
    paths.push_back(fmt::format("/proc/self/ns/{}", kind.name));
    return try_each(paths, "no such file", [&kind](const std::string& path) {
        const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd) return judged(-1, path.c_str());
        return judged(setns(fd.get(), static_cast<int>(kind.flag)), path.c_str());
    });
}

Attempt enter_by_pidfd(const Target& target) {
    const pid_t process = target.launcher > 0 ? target.launcher : 1;
    const UniqueFd fd = test::pidfd_of(process);
    if (!fd) return judged(-1, "pidfd_open");
    return judged(setns(fd.get(), CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS), "setns");
}

Attempt leave(uint64_t flag) {
    return judged(unshare(static_cast<int>(flag)));
}

/// clone(2) and clone3(2) as the kernel has them, without a stack: they return twice, as fork does.
Attempt wait_for(long child, const char* call) {
    if (child < 0) return judged(-1, call);
    if (child == 0) _exit(0);
    waitpid(static_cast<pid_t>(child), nullptr, __WALL);
    return succeeded(call);
}

Attempt by_clone(uint64_t flag) {
    return wait_for(syscall(SYS_clone, flag | SIGCHLD, nullptr, nullptr, nullptr, 0), "clone");
}

Attempt by_clone3(uint64_t flag) {
    clone_args arguments{};
    arguments.flags = flag;
    arguments.exit_signal = SIGCHLD;
    return wait_for(syscall(SYS_clone3, &arguments, sizeof arguments), "clone3");
}

}  // namespace

void add_namespace_probes(Probes& probes) {
    const Control unshare_control{"unshare of the working directory (CLONE_FS)",
                                  [](const Target&) { return leave(CLONE_FS); }};
    const char* own_user =
        "nobody enters the user namespace that he is in, nor from a process with its root changed";
    for (const Kind& kind : kKinds) {
        const bool is_user = kind.flag == CLONE_NEWUSER;
        probes.push_back({.name = fmt::format("setns-{}", kind.named),
                          .group = "namespaces",
                          .what = fmt::format("setns to the {} namespace of pid 1 or of itself", kind.named),
                          .attempt = [&kind](const Target& t) { return enter(t, kind); },
                          .refusals = {ENOENT},
                          .inherent = is_user ? std::vector{EINVAL} : std::vector<int>{},
                          .inherent_why = is_user ? own_user : "",
                          .kernel_first = is_user});
    }
    probes.push_back({.name = "setns-pidfd",
                      .group = "namespaces",
                      .what = "setns by a pidfd of the launcher or pid 1",
                      .attempt = enter_by_pidfd,
                      .refusals = {ESRCH}});
    for (const Kind& kind : kKinds) {
        probes.push_back({.name = fmt::format("unshare-{}", kind.named),
                          .group = "namespaces",
                          .what = fmt::format("unshare of the {} namespace", kind.named),
                          .attempt = [&kind](const Target&) { return leave(kind.flag); },
                          .control = unshare_control});
    }
    probes.push_back({.name = "clone-user",
                      .group = "namespaces",
                      .what = "clone with a new user namespace",
                      .attempt = [](const Target&) { return by_clone(CLONE_NEWUSER); },
                      .control = {"clone without flags", [](const Target&) { return by_clone(0); }}});
    probes.push_back({.name = "clone-mount",
                      .group = "namespaces",
                      .what = "clone with new user and mount namespaces",
                      .attempt = [](const Target&) { return by_clone(CLONE_NEWUSER | CLONE_NEWNS); },
                      .control = {"clone without flags", [](const Target&) { return by_clone(0); }}});
    probes.push_back({.name = "clone3-user",
                      .group = "namespaces",
                      .what = "clone3 with a new user namespace",
                      .attempt = [](const Target&) { return by_clone3(CLONE_NEWUSER); },
                      .control = {"clone3 without flags", [](const Target&) { return by_clone3(0); }}});
}

}  // namespace postern::hostile
