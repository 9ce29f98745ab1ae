// SPDX-License-Identifier: Apache-2.0
// System calls that program, observe, replace or stop the kernel; bpf(2) has a file of its own.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <vector>

#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

Attempt open_perf_event(const Target&) {
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_CPU_CLOCK;
    // All processes of CPU 0.
    const UniqueFd fd(
        static_cast<int>(syscall(SYS_perf_event_open, &attributes, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
    return judged(fd.get());
}

Attempt open_userfaultfd(const Target&) {
    const UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC)));
    return judged(fd.get());
}

Attempt load_module(const Target&) {
    const int fd = control_memfd();
    if (fd < 0) return preparation_failed("memfd");
    return judged(syscall(SYS_finit_module, fd, "", 0));
}

Attempt init_module(const Target&) {
    const char image[64] = {};
    return judged(syscall(SYS_init_module, image, sizeof image, ""));
}

Attempt open_by_handle(const Target&) {
    alignas(file_handle) char storage[sizeof(file_handle) + MAX_HANDLE_SZ] = {};
    auto* handle = reinterpret_cast<file_handle*>(storage);
    Attempt last = impossible("no folder");
    // Not every file system has handles: overlayfs seldom, tmpfs and kernfs always.
    for (const char* folder : {"/tmp", "/dev/shm", "/run", "/sys", "/sys/fs/cgroup"}) {
        *handle = {};
        handle->handle_bytes = MAX_HANDLE_SZ;
        int mount_id = 0;
        if (name_to_handle_at(AT_FDCWD, folder, handle, &mount_id, 0) != 0) {
            if (errno != ENOENT && errno != EOPNOTSUPP) return judged(-1, "name_to_handle_at");
            continue;
        }
        const UniqueFd mount(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const UniqueFd fd(open_by_handle_at(mount.get(), handle, O_RDONLY | O_CLOEXEC));
        last = judged(fd.get(), folder);
        if (fd) return last;
    }
    return last;
}

Attempt read_log(const Target&) {
    char text[256];
    return judged(klogctl(3 /* SYSLOG_ACTION_READ_ALL */, text, sizeof text));
}

/// To what it is: outside nothing changes.
Attempt set_clock(const Target&) {
    timespec now{};
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return preparation_failed("clock_gettime");
    return judged(clock_settime(CLOCK_REALTIME, &now));
}

Attempt adjust_clock(const Target&) {
    timex change{};
    change.modes = ADJ_STATUS;
    timex now{};
    if (adjtimex(&now) < 0) return judged(-1, "adjtimex");
    change.status = now.status;
    return judged(adjtimex(&change));
}

Attempt set_names(const Target&) {
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) != 0) return preparation_failed("gethostname");
    return judged(sethostname(name, std::strlen(name)));
}

Attempt add_key(const Target&) {
    // KEY_SPEC_USER_KEYRING -4: the keys of the user, which is the same outside the sandbox.
    const long key = syscall(SYS_add_key, "user", "postern-hostile-client", "x", 1, -4);
    Attempt attempt = judged(key);
    if (key > 0) syscall(SYS_keyctl, 9 /* KEYCTL_UNLINK */, key, -4);
    return attempt;
}

Attempt join_keyring(const Target&) {
    return judged(syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -4, 1));
}

/// A key of the session that the launcher was started in: who possesses it reads it, whatever his user is.
Attempt search_session_keyring(const Target& target) {
    constexpr const char* kName = "postern-hostile-session";
    if (target.outside) {
        // There must be one to be found; in a session of this process alone.
        if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0)
            return preparation_failed("KEYCTL_JOIN_SESSION_KEYRING");
        if (syscall(SYS_add_key, "user", kName, "x", 1, KEY_SPEC_SESSION_KEYRING) < 0)
            return preparation_failed("add_key");
    }
    const long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", kName, 0);
    if (key < 0) return judged(key, "KEYCTL_SEARCH");
    char secret[16];
    return judged(syscall(SYS_keyctl, KEYCTL_READ, key, secret, sizeof secret), "KEYCTL_READ");
}

}  // namespace

void add_kernel_probes(Probes& probes) {
    const auto add = [&probes](std::string name, std::string what,
                               std::function<Attempt(const Target&)> attempt, std::vector<int> refusals = {},
                               std::vector<int> inherent = {}, std::string why = {},
                               std::vector<int> passed = {}) {
        probes.push_back({.name = std::move(name),
                          .group = "kernel",
                          .what = std::move(what),
                          .attempt = std::move(attempt),
                          .refusals = std::move(refusals),
                          .inherent = std::move(inherent),
                          .inherent_why = std::move(why),
                          .passed = std::move(passed)});
    };
    const std::string not_built = "this kernel is built without it";
    add("perf-event-open", "perf_event_open of CPU 0", open_perf_event, {}, {ENOENT, EOPNOTSUPP}, not_built);
    add("userfaultfd", "userfaultfd", open_userfaultfd);
    add("init-module", "init_module", init_module, {}, {}, {}, {ENOEXEC});
    add("finit-module", "finit_module", load_module, {}, {}, {}, {ENOEXEC, EINVAL});
    add("delete-module", "delete_module of a module that is not there",
        [](const Target&) {
            return judged(syscall(SYS_delete_module, "postern_no_such_module", O_NONBLOCK));
        },
        {}, {}, {}, {ENOENT});
    add("kexec-load", "kexec_load without an image",
        [](const Target&) { return judged(syscall(SYS_kexec_load, 0, 0, nullptr, 0)); }, {}, {EADDRNOTAVAIL},
        "kexec needs an architecture that it names", {});
    add("reboot", "reboot, with a magic number that stops it",
        [](const Target&) { return judged(syscall(SYS_reboot, 0, 0, 0, nullptr)); }, {}, {}, {}, {EINVAL});
    add("swapoff", "swapoff of a file that is no swap",
        [](const Target&) { return judged(swapoff("/dev/null")); }, {}, {}, {}, {EINVAL});
    add(
        "acct", "acct: process accounting off", [](const Target&) { return judged(acct(nullptr)); }, {},
        {ENOSYS}, not_built);
    add("syslog", "syslog: read of the kernel's log", read_log);
    add("clock-settime", "clock_settime to what it is", set_clock);
    add("adjtimex", "adjtimex: a change of status", adjust_clock);
    add("sethostname", "sethostname to what it is", set_names);
    add("add-key", "add_key to the user's keyring", add_key, {}, {}, {}, {});
    add("keyctl", "keyctl: the user's keyring", join_keyring);
    add("session-keyring", "keyctl: a key of the launcher's session", search_session_keyring, {ENOKEY});
    add("open-by-handle", "open_by_handle_at: past every path", open_by_handle);
}

}  // namespace postern::hostile
