// SPDX-License-Identifier: Apache-2.0
#pragma once

// One thin wrapper for each system call that glibc lacks, or whose glibc wrapper does more than the call.
// They are also what runs between clone and exec in the child, where only async-signal-safe work is allowed
// (the launcher may have threads): glibc's setresuid(2) would signal threads that are not there, its fork()
// would take locks that nobody is left to release.
//
// All return what syscall(2) does: -1 and errno.

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <ctime>

namespace postern::sys {

inline long clone3(clone_args& arguments) {
    return ::syscall(SYS_clone3, &arguments, sizeof arguments);
}

inline int open_tree(int dir, const char* path, unsigned flags) {
    return static_cast<int>(::syscall(SYS_open_tree, dir, path, flags));
}
inline int move_mount(int from_dir, const char* from, int to_dir, const char* to, unsigned flags) {
    return static_cast<int>(::syscall(SYS_move_mount, from_dir, from, to_dir, to, flags));
}
inline int mount_setattr(int dir, const char* path, unsigned flags, const mount_attr& attributes) {
    return static_cast<int>(::syscall(SYS_mount_setattr, dir, path, flags, &attributes, sizeof attributes));
}
inline int fsopen(const char* type) {
    return static_cast<int>(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}
inline int fsconfig(int fs, unsigned command, const char* key, const char* value) {
    return static_cast<int>(::syscall(SYS_fsconfig, fs, command, key, value, 0));
}
inline int fsmount(int fs, unsigned attributes) {
    return static_cast<int>(::syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes));
}
inline int pivot_root(const char* new_root, const char* put_old) {
    return static_cast<int>(::syscall(SYS_pivot_root, new_root, put_old));
}
inline int openat2(int dir, const char* path, std::uint64_t flags, std::uint64_t resolve) {
    open_how how = {};
    how.flags = flags;
    how.resolve = resolve;
    return static_cast<int>(::syscall(SYS_openat2, dir, path, &how, sizeof how));
}

/// Closes fds first…last; nothing to do when last < first.
inline int close_range(unsigned first, unsigned last, unsigned flags) {
    if (last < first) return 0;
    return static_cast<int>(::syscall(SYS_close_range, first, last, flags));
}

inline int setgroups(std::size_t count, const gid_t* groups) {
    return static_cast<int>(::syscall(SYS_setgroups, count, groups));
}
inline int setresgid(gid_t gid) {
    return static_cast<int>(::syscall(SYS_setresgid, gid, gid, gid));
}
inline int setresuid(uid_t uid) {
    return static_cast<int>(::syscall(SYS_setresuid, uid, uid, uid));
}

/// Sets the three sets of the calling thread.
inline int capset(std::uint64_t permitted, std::uint64_t effective, std::uint64_t inheritable) {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2];
    for (unsigned half = 0; half < 2; ++half) {
        data[half].permitted = static_cast<std::uint32_t>(permitted >> (32 * half));
        data[half].effective = static_cast<std::uint32_t>(effective >> (32 * half));
        data[half].inheritable = static_cast<std::uint32_t>(inheritable >> (32 * half));
    }
    return static_cast<int>(::syscall(SYS_capset, &header, data));
}
/// The permitted set of the calling thread; 0 if it cannot be read.
inline std::uint64_t permitted_capabilities() {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    if (::syscall(SYS_capget, &header, data) != 0) return 0;
    return data[0].permitted | (static_cast<std::uint64_t>(data[1].permitted) << 32);
}

inline int prlimit(pid_t pid, int resource, const rlimit64* wanted, rlimit64* old) {
    return static_cast<int>(::syscall(SYS_prlimit64, pid, resource, wanted, old));
}
inline int seccomp(unsigned operation, unsigned flags, const void* argument) {
    return static_cast<int>(::syscall(SYS_seccomp, operation, flags, argument));
}
inline int execveat(int dir, const char* path, char* const* argv, char* const* env, int flags) {
    return static_cast<int>(::syscall(SYS_execveat, dir, path, argv, env, flags));
}
inline int pidfd_open(pid_t pid) {
    return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}
inline int pidfd_send_signal(int pidfd, int signal) {
    return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

/// Nanoseconds of CPU time, user and system, that the process itself (not its children) has used: the clock
/// that RLIMIT_CPU is measured by. Also of one that is not reaped yet; -1: there is none.
/// Source: MAKE_PROCESS_CPUCLOCK and CPUCLOCK_PROF of include/linux/posix-timers_types.h.
inline std::int64_t cpu_time(pid_t pid) {
    const auto clock = static_cast<clockid_t>(~static_cast<unsigned>(pid) << 3);
    timespec used = {};
    if (::syscall(SYS_clock_gettime, clock, &used) != 0) return -1;
    return std::int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec;
}

/// The kernel's sigaction and signal sets are not glibc's.
struct KernelSigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)();
    std::uint64_t mask;
};
inline int reset_signal(int signal) {
    const KernelSigaction action = {SIG_DFL, 0, nullptr, 0};
    return static_cast<int>(::syscall(SYS_rt_sigaction, signal, &action, nullptr, sizeof action.mask));
}
inline constexpr std::uint64_t kAllSignals = ~std::uint64_t{0};
inline int set_signal_mask(std::uint64_t mask, std::uint64_t* old) {
    return static_cast<int>(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, old, sizeof mask));
}
/// Takes the next blocked signal of `mask`; waits for it.
inline int wait_signal(std::uint64_t mask, siginfo_t& info) {
    return static_cast<int>(::syscall(SYS_rt_sigtimedwait, &mask, &info, nullptr, sizeof mask));
}

}  // namespace postern::sys
