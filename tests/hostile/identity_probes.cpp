// SPDX-License-Identifier: Apache-2.0
// Becoming somebody else: root, capable, or free of what was laid on.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "broker-core/scope_guard.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

constexpr unsigned kLastKnownCapability = CAP_CHECKPOINT_RESTORE;

/// By raw numbers: the calls of libc would do it in every thread.
Attempt become_root(const Target&) {
    return judged(syscall(SYS_setuid, 0));
}

Attempt become_root_group(const Target&) {
    return judged(syscall(SYS_setgid, 0));
}

Attempt become_root_all(const Target&) {
    return judged(syscall(SYS_setresuid, 0, 0, 0));
}

Attempt drop_groups(const Target&) {
    return judged(syscall(SYS_setgroups, 0, nullptr));
}

Attempt set_file_user(const Target&) {
    // setfsuid(2) returns the old id whether or not it did anything.
    syscall(SYS_setfsuid, 0);
    const long now = syscall(SYS_setfsuid, -1);
    return now == 0 ? succeeded() : failed(now < 0 ? errno : EPERM);
}

Attempt raise_capabilities(const Target&) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    for (unsigned capability = 0; capability <= kLastKnownCapability; ++capability) {
        data[CAP_TO_INDEX(capability)].effective |= CAP_TO_MASK(capability);
        data[CAP_TO_INDEX(capability)].permitted |= CAP_TO_MASK(capability);
    }
    return judged(syscall(SYS_capset, &header, data));
}

Attempt raise_ambient(const Target& target) {
    if (target.outside) {
        // Ambient takes inheritable: root has it to give.
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        __user_cap_data_struct data[2] = {};
        if (syscall(SYS_capget, &header, data) != 0) return preparation_failed("capget");
        data[0].inheritable |= CAP_TO_MASK(CAP_SYS_ADMIN);
        if (syscall(SYS_capset, &header, data) != 0) return preparation_failed("capset");
    }
    return judged(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0));
}

Attempt drop_bound(const Target&) {
    return judged(prctl(PR_CAPBSET_DROP, CAP_SYS_PACCT, 0, 0, 0));
}

Attempt set_securebits(const Target&) {
    const int now = prctl(PR_GET_SECUREBITS);
    if (now < 0) return judged(-1, "PR_GET_SECUREBITS");
    return judged(prctl(PR_SET_SECUREBITS, now | 1 /* SECBIT_NOROOT */));
}

Attempt set_memory_map(const Target&) {
    return judged(prctl(PR_SET_MM, PR_SET_MM_START_BRK, sbrk(0), 0, 0), "PR_SET_MM");
}

Attempt raise_limit(const Target&) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return preparation_failed("getrlimit");
    limit.rlim_max += 1;
    return judged(setrlimit(RLIMIT_NOFILE, &limit));
}

Attempt raise_priority(const Target&) {
    return judged(setpriority(PRIO_PROCESS, 0, -10));
}

Attempt become_real_time(const Target&) {
    sched_param parameters{};
    parameters.sched_priority = 1;
    return judged(sched_setscheduler(0, SCHED_FIFO, &parameters));
}

Attempt give_away(const Target&) {
    const std::string folder = scratch_folder();
    if (folder.empty()) return preparation_failed("a folder to write in");
    // An id that is nobody's.
    Attempt attempt = judged(chown(folder.c_str(), 12345, 12345));
    rmdir(folder.c_str());
    return attempt;
}

}  // namespace

void add_identity_probes(Probes& probes) {
    const struct {
        const char* name;
        const char* what;
        Attempt (*attempt)(const Target&);
        std::vector<int> refusals;  ///< EINVAL: user 0 does not exist in the user namespace
    } ways[] = {
        {"setuid-root", "setuid(0)", become_root, {EINVAL}},
        {"setgid-root", "setgid(0)", become_root_group, {EINVAL}},
        {"setresuid-root", "setresuid(0, 0, 0)", become_root_all, {EINVAL}},
        {"setgroups", "setgroups: none", drop_groups, {}},
        {"setfsuid-root", "setfsuid(0)", set_file_user, {}},
        {"capset", "capset: every capability", raise_capabilities, {}},
        {"ambient-capability", "prctl: CAP_SYS_ADMIN ambient", raise_ambient, {}},
        {"bounding-set", "prctl: a change of the bounding set", drop_bound, {}},
        {"securebits", "prctl: a change of the securebits", set_securebits, {}},
        {"prctl-mm", "prctl PR_SET_MM", set_memory_map, {}},
        {"rlimit", "a higher hard limit", raise_limit, {}},
        {"priority", "a higher priority", raise_priority, {}},
        {"real-time", "real-time scheduling", become_real_time, {}},
        {"chown", "chown to somebody else", give_away, {EINVAL}},
    };
    for (const auto& way : ways) {
        probes.push_back({.name = way.name,
                          .group = "identity",
                          .what = way.what,
                          .attempt = way.attempt,
                          .refusals = way.refusals});
    }
}

}  // namespace postern::hostile
