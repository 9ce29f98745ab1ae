// SPDX-License-Identifier: Apache-2.0
#include "launcher/exit_reason.h"

#include <fmt/format.h>

#include <array>
#include <csignal>

namespace postern {
namespace {

std::string seccomp_message(const std::optional<ForbiddenCall>& call) {
    if (!call) {
        // Not guessed: SIGSYS is all that wait(2) gives.
        return "the seccomp filter ended the client (SIGSYS) for a system call that it forbids. Which one is "
               "in the kernel's log: as root, `dmesg | grep type=1326`, or `ausearch -m SECCOMP` where "
               "auditd "
               "runs. Or start postern under `strace -f`: it is the call before \"killed by SIGSYS\"";
    }
    const std::string name = call->name.empty() ? "without a name" : call->name;
    if (call->abi != "x86_64") {
        return fmt::format(
            "the seccomp filter ended the client (SIGSYS) for system call {} ({} of the {} ABI); only 64-bit "
            "calls are ever allowed: use a 64-bit program",
            name, call->number, call->abi);
    }
    return fmt::format(
        "the seccomp filter ended the client (SIGSYS) for system call {} ({}); if the client is meant to "
        "make "
        "it, allow it in the profile's seccomp file",
        name, call->number);
}

std::string memory_message(const CgroupEvents& events) {
    if (events.over_memory == 0) {
        return "the machine, or a cgroup above the client's, ran out of memory, and the OOM killer ended the "
               "client; give the client a memory.max of its own that fits";
    }
    return "the memory limit was hit: the OOM killer ended the client; raise memory.max of its cgroup, or "
           "let "
           "it need less";
}

/// Limits that other processes of the client met, or that it survived.
void add_survived(const ExitReason& reason, const CgroupEvents& events, std::vector<std::string>& lines) {
    if (events.oom_kills > 0 && reason.kind != ExitReason::Kind::Memory) {
        lines.push_back(
            fmt::format("the memory limit was hit: the OOM killer ended {} of the client's "
                        "processes; raise memory.max of its cgroup, or let it need less",
                        events.oom_kills));
    }
    if (events.refused_forks > 0) {
        lines.push_back(
            fmt::format("the limit of processes was hit: {} fork{} of the client {} refused; raise "
                        "pids.max of its cgroup if it needs more",
                        events.refused_forks, events.refused_forks == 1 ? "" : "s",
                        events.refused_forks == 1 ? "was" : "were"));
    }
}

}  // namespace

ExitReason find_exit_reason(const ClientExit& exit, const ExitEvidence& evidence) {
    using Kind = ExitReason::Kind;
    if (exit.kind == ClientExit::Kind::Exited) return {Kind::Exited, 0, std::nullopt};
    if (exit.kind == ClientExit::Kind::TimeLimit) return {Kind::Time, 0, std::nullopt};
    if (exit.kind == ClientExit::Kind::CpuLimit) return {Kind::CpuTime, exit.value, std::nullopt};
    if (exit.value == SIGKILL && evidence.events.oom_kills > 0) return {Kind::Memory, SIGKILL, std::nullopt};
    if (exit.value == SIGXCPU) return {Kind::Time, SIGXCPU, std::nullopt};
    if (exit.value == SIGSYS && (evidence.has_filter || evidence.call))
        return {Kind::Seccomp, SIGSYS, evidence.call};
    return {Kind::Signal, exit.value, std::nullopt};
}

std::string_view exit_reason_name(ExitReason::Kind kind) {
    switch (kind) {
        case ExitReason::Kind::Exited:
            return "status";
        case ExitReason::Kind::Signal:
            return "signal";
        case ExitReason::Kind::Time:
        case ExitReason::Kind::CpuTime:
            return "time";
        case ExitReason::Kind::Memory:
            return "memory";
        case ExitReason::Kind::Seccomp:
            break;
    }
    return "seccomp";
}

std::string_view hit_time_limit(const ExitReason& reason) {
    if (reason.kind == ExitReason::Kind::CpuTime) return "cpu_limit";
    if (reason.kind != ExitReason::Kind::Time) return "";
    return reason.signal == 0 ? "time_limit" : "rlimits.cpu";
}

std::string signal_name(int signal) {
    // signal(7). Not sigabbrev_np(3), which glibc alone has.
    static constexpr std::array<std::string_view, 32> kNames = {
        "",          "SIGHUP",  "SIGINT",    "SIGQUIT", "SIGILL",   "SIGTRAP", "SIGABRT", "SIGBUS",
        "SIGFPE",    "SIGKILL", "SIGUSR1",   "SIGSEGV", "SIGUSR2",  "SIGPIPE", "SIGALRM", "SIGTERM",
        "SIGSTKFLT", "SIGCHLD", "SIGCONT",   "SIGSTOP", "SIGTSTP",  "SIGTTIN", "SIGTTOU", "SIGURG",
        "SIGXCPU",   "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGPOLL", "SIGPWR",  "SIGSYS"};
    const auto number = static_cast<std::size_t>(signal);
    if (signal > 0 && number < kNames.size()) return std::string(kNames[number]);
    return fmt::format("signal {}", signal);
}

std::vector<std::string> exit_messages(const ExitReason& reason, const CgroupEvents& events) {
    std::vector<std::string> lines;
    switch (reason.kind) {
        case ExitReason::Kind::Time:
            lines.emplace_back(reason.signal == 0
                                   ? "the time limit was hit; the client was killed"
                                   : "the limit of CPU time was hit (SIGXCPU); raise the resource limit cpu");
            break;
        case ExitReason::Kind::CpuTime:
            lines.push_back(
                fmt::format("the limit of CPU time (cpu_limit) was hit; the client was killed ({})",
                            signal_name(reason.signal)));
            break;
        case ExitReason::Kind::Memory:
            lines.push_back(memory_message(events));
            break;
        case ExitReason::Kind::Seccomp:
            lines.push_back(seccomp_message(reason.call));
            break;
        case ExitReason::Kind::Signal:
            if (reason.signal == SIGXFSZ)
                lines.emplace_back(
                    "the limit of a file's size was hit (SIGXFSZ); raise the resource limit fsize");
            break;
        case ExitReason::Kind::Exited:
            break;
    }
    add_survived(reason, events, lines);
    return lines;
}

}  // namespace postern
