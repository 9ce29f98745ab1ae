// SPDX-License-Identifier: Apache-2.0
// The launcher and everybody else: processes that hold the unguarded fds, or more rights.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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

using ProcessAction = Attempt (*)(pid_t process);

/// The launcher, if it can be seen, and inside also whoever else is in /proc. Outside nobody else is touched.
std::vector<pid_t> others(const Target& target) {
    std::vector<pid_t> found;
    if (target.launcher > 0) found.push_back(target.launcher);
    if (target.outside) return found;
    for (const std::string& path : entries_of("/proc")) {
        const std::string name = path.substr(sizeof "/proc/" - 1);
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        const pid_t process = std::stoi(name);
        if (process != target.self && process != getpid() && process != target.launcher)
            found.push_back(process);
    }
    return found;
}

Attempt on_others(const Target& target, ProcessAction action, bool with_init) {
    Attempt last = failed(ESRCH, "no other process is in sight");
    for (const pid_t process : others(target)) {
        if (process == 1 && !with_init) continue;
        last = action(process);
        last.detail += fmt::format(" of process {}", process);
        if (last.state != Attempt::State::Failed) return last;
    }
    return last;
}

/// The action on a child of one's own.
Attempt on_child(ProcessAction action) {
    const pid_t child = fork();
    if (child < 0) return preparation_failed("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
    Attempt attempt = action(child);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return attempt;
}

Attempt seize(pid_t process) {
    const long seized = ptrace(PTRACE_SEIZE, process, nullptr, nullptr);
    Attempt attempt = judged(seized, "PTRACE_SEIZE");
    if (seized == 0) {
        // Only a stopped tracee can be let go; the tracer's end does it too, but this is sooner.
        ptrace(PTRACE_INTERRUPT, process, nullptr, nullptr);
        waitpid(process, nullptr, __WALL);
        ptrace(PTRACE_DETACH, process, nullptr, nullptr);
    }
    return attempt;
}

Attempt open_memory(pid_t process) {
    const UniqueFd fd(open(fmt::format("/proc/{}/mem", process).c_str(), O_RDWR | O_CLOEXEC));
    return judged(fd.get(), "mem");
}

Attempt read_environment(pid_t process) {
    const UniqueFd fd(open(fmt::format("/proc/{}/environ", process).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return judged(-1, "environ");
    char byte = 0;
    return judged(read(fd.get(), &byte, 1), "environ");
}

Attempt enter_root(pid_t process) {
    const UniqueFd fd(
        open(fmt::format("/proc/{}/root/", process).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return judged(fd.get(), "root");
}

/// A program can be overwritten by who has a way to its file once nobody runs it any more.
Attempt open_program(pid_t process) {
    const UniqueFd fd(open(fmt::format("/proc/{}/exe", process).c_str(), O_PATH | O_CLOEXEC));
    return judged(fd.get(), "exe");
}

Attempt list_fds(pid_t process) {
    const UniqueFd fd(open(fmt::format("/proc/{}/fd", process).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return judged(-1, "fd");
    char entries[1024];
    return judged(syscall(SYS_getdents64, fd.get(), entries, sizeof entries), "fd");
}

Attempt read_memory(pid_t process) {
    // The permission check comes before the addresses are looked at: EFAULT means that one may.
    char byte = 0;
    const iovec local{&byte, 1};
    const iovec remote{reinterpret_cast<void*>(0x400000), 1};
    return judged(process_vm_readv(process, &local, 1, &remote, 1, 0), "process_vm_readv");
}

Attempt write_memory(pid_t process) {
    // An address that nobody has mapped: allowed, it changes nothing.
    char byte = 0;
    const iovec local{&byte, 1};
    const iovec remote{nullptr, 1};
    return judged(process_vm_writev(process, &local, 1, &remote, 1, 0), "process_vm_writev");
}

/// To a child, which has this page at the same place.
Attempt write_memory_of_child(pid_t process) {
    static char place = 0;
    const iovec local{&place, 1};
    const iovec remote{&place, 1};
    return judged(process_vm_writev(process, &local, 1, &remote, 1, 0), "process_vm_writev");
}

Attempt take_fd(pid_t process) {
    const UniqueFd pidfd = test::pidfd_of(process);
    if (!pidfd) return judged(-1, "pidfd_open");
    Attempt last = failed(EBADF);
    for (int number = 0; number < 64; ++number) {
        const UniqueFd taken = test::fd_from(pidfd.get(), number);
        if (taken) return succeeded(fmt::format("fd {}", number));
        if (errno != EBADF) last = judged(-1, "pidfd_getfd");
    }
    return last;
}

Attempt signal_zero(pid_t process) {
    return judged(kill(process, 0), "kill");
}

Attempt signal_by_pidfd(pid_t process) {
    const UniqueFd pidfd = test::pidfd_of(process);
    if (!pidfd) return judged(-1, "pidfd_open");
    return judged(syscall(SYS_pidfd_send_signal, pidfd.get(), 0, nullptr, 0), "pidfd_send_signal");
}

Attempt change_limit(pid_t process) {
    rlimit limit{};
    // Reading it takes the same right as changing it.
    return judged(prlimit(process, RLIMIT_NOFILE, nullptr, &limit), "prlimit");
}

}  // namespace

void add_process_probes(Probes& probes) {
    const struct {
        const char* name;
        const char* what;
        ProcessAction action;
        bool with_init;  ///< what hurts the init of a pid namespace ends nothing but that, so it does not
                         ///< count
        std::vector<int> passed;
    } ways[] = {
        {"ptrace", "ptrace of the launcher, or of anybody in sight", seize, true, {}},
        {"proc-mem", "open of /proc/PID/mem of the launcher, or of anybody", open_memory, true, {}},
        {"proc-environ", "read of /proc/PID/environ", read_environment, true, {}},
        {"proc-root", "open of /proc/PID/root", enter_root, true, {}},
        {"proc-exe", "open of /proc/PID/exe of the launcher, or of anybody", open_program, true, {}},
        {"proc-fd", "list of /proc/PID/fd", list_fds, true, {}},
        {"process-vm-readv", "process_vm_readv of the launcher, or of anybody", read_memory, true, {EFAULT}},
        {"process-vm-writev",
         "process_vm_writev to the launcher, or to anybody",
         write_memory,
         true,
         {EFAULT}},
        {"pidfd-getfd", "pidfd_getfd of the launcher's fds, or of anybody's", take_fd, true, {}},
        {"prlimit", "prlimit of the launcher, or of anybody", change_limit, false, {}},
        {"kill", "a signal to the launcher, or to anybody", signal_zero, false, {}},
        {"pidfd-signal", "a signal by pidfd to the launcher, or to anybody", signal_by_pidfd, false, {}},
    };
    for (const auto& way : ways) {
        probes.push_back(
            {.name = way.name,
             .group = "processes",
             .what = way.what,
             .attempt = [action = way.action, with_init = way.with_init](
                            const Target& t) { return on_others(t, action, with_init); },
             .control = {"the same on a child of its own",
                         [action = way.action == write_memory ? write_memory_of_child : way.action](
                             const Target&) { return on_child(action); }},
             .refusals = {ESRCH, ENOENT, EROFS},
             .passed = way.passed});
    }
}

}  // namespace postern::hostile
