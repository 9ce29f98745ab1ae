// SPDX-License-Identifier: Apache-2.0
#include "launcher/init.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <iterator>

#include "launcher/child.h"
#include "launcher/syscalls.h"

namespace postern {
namespace {

/// What run_init() below calls, and nothing else. Not the client's filter: a profile may well forbid its
/// client to wait or to kill, and init could not live under that.
bool allow_only_own_calls() {
#define POSTERN_ALLOW(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    static constexpr sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        POSTERN_ALLOW(SYS_rt_sigtimedwait),
        POSTERN_ALLOW(SYS_waitid),
        POSTERN_ALLOW(SYS_clock_gettime),
        POSTERN_ALLOW(SYS_kill),
        POSTERN_ALLOW(SYS_write),
        POSTERN_ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
#undef POSTERN_ALLOW
    const sock_fprog filter = {static_cast<unsigned short>(std::size(program)),
                               const_cast<sock_filter*>(program)};
    return sys::seccomp(SECCOMP_SET_MODE_FILTER, 0, &filter) == 0;
}

/// Nothing of what the launcher held may be reached through init: the clone copied its whole fd table, and
/// the client's fds must be closed when the client closes them.
bool give_everything_up(const InitJob& job) {
    unsigned next = 0;
    for (std::size_t i = 0; i < job.kept_count; ++i) {
        const auto kept = static_cast<unsigned>(job.kept_fds[i]);
        if (kept > next && sys::close_range(next, kept - 1, 0) != 0) return false;
        next = kept + 1;
    }
    return sys::close_range(next, ~0U, 0) == 0 && ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 &&
           sys::capset(0, 0, 0) == 0 && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           allow_only_own_calls();
}

[[noreturn]] void leave(int status) {
    while (true) ::syscall(SYS_exit_group, status);
}

/// Of the client, if it has ended: a process that is not reaped yet can still be asked.
std::int64_t client_cpu_time(const InitJob& job) {
    siginfo_t info;
    info.si_pid = 0;
    if (!job.tell_cpu_time ||
        ::syscall(SYS_waitid, P_PID, job.client, &info, WEXITED | WNOHANG | WNOWAIT, nullptr) != 0 ||
        info.si_pid == 0)
        return -1;
    return sys::cpu_time(job.client);
}

/// Reaps all that is there to be reaped; ends init when the client is among it.
void reap(const InitJob& job) {
    const std::int64_t cpu_time = client_cpu_time(job);
    siginfo_t info;
    while (true) {
        info.si_pid = 0;
        if (::syscall(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG, nullptr) != 0 || info.si_pid == 0)
            return;
        if (info.si_pid != job.client) continue;
        StatusRecord record;
        record.kind = StatusRecord::Kind::Exit;
        record.exit = {info.si_code, info.si_status, cpu_time};
        // Nobody reads it when the launcher is gone; then nobody is told.
        [[maybe_unused]] const ssize_t written = ::write(job.status_pipe, &record, sizeof record);
        leave(info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
    }
}

/// From a process outside (the launcher, or somebody's kill(1)) and not from the terminal, whose signals the
/// client has got itself where it shares the session. In a pid namespace a sender outside has pid 0.
bool is_for_client(const siginfo_t& info, const InitJob& job) {
    if (info.si_code > 0) return false;
    return job.pid_namespace ? info.si_pid == 0 : info.si_pid != job.client;
}

}  // namespace

void run_init(const InitJob& job) {
    // Ending here kills the client, before it could do anything that counts on it.
    if (!give_everything_up(job)) leave(125);
    siginfo_t info;
    while (true) {
        const int signal = sys::wait_signal(sys::kAllSignals, info);
        if (signal == SIGCHLD) {
            reap(job);
        } else if (signal > 0 && is_for_client(info, job)) {
            ::kill(job.client, signal);
        }
    }
}

}  // namespace postern
