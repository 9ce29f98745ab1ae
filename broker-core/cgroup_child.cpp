// SPDX-License-Identifier: Apache-2.0
#include "broker-core/cgroup_child.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>

#include "broker-core/file.h"
#include "broker-core/guard_cgroup.h"
#include "broker-core/unique_fd.h"

namespace postern {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks{50};

/// What the child has to say: an errno, and the words behind it.
struct Answer {
    int errnum = 0;
    bool failed = false;
    std::array<char, 512> words{};
};

[[noreturn]] void answer(int into, const std::function<Status()>& work) {
    Answer said;
    if (Status done = work(); !done) {
        said.failed = true;
        said.errnum = done.error().errnum;
        done.error().message.copy(said.words.data(), said.words.size() - 1);
    }
    // A pipe takes this at once, or not at all: the parent then says that there was no answer.
    (void)!::write(into, &said, sizeof said);
    ::_exit(0);
}

struct Child {
    pid_t pid = -1;        ///< 0 in the child itself
    UniqueFd process;      ///< a pidfd
    bool outside = false;  ///< it has to enter the cgroup yet
};

Result<Child> fork_into(int cgroup) {
    int pidfd = -1;
    clone_args how{};
    how.flags = CLONE_PIDFD | (cgroup < 0 ? 0U : CLONE_INTO_CGROUP);
    how.pidfd = reinterpret_cast<uint64_t>(&pidfd);
    how.exit_signal = SIGCHLD;
    how.cgroup = cgroup < 0 ? 0 : static_cast<uint64_t>(cgroup);
    long pid = ::syscall(SYS_clone3, &how, sizeof how);
    // seccomp cannot read the flags of clone3, so systemd's RestrictNamespaces= and containers say that it
    // does not exist; clone they let through. Second best: who enters later waits for all of the machine's
    // forks (cgroup_threadgroup_rwsem).
    const bool missing = pid < 0 && errno == ENOSYS;
    if (missing) pid = ::syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, nullptr, &pidfd, nullptr, 0UL);
    if (pid < 0) {
        const int error = errno;
        return fail_errno(error, "cannot make a process{}",
                          error == EAGAIN ? " (pids.max of the cgroup, RLIMIT_NPROC)" : "");
    }
    return Child{static_cast<pid_t>(pid), UniqueFd(pidfd), missing && cgroup >= 0};
}

/// By somebody who may: what is born in it stands still, and its parent would wait.
bool is_frozen(int cgroup) {
    const UniqueFd events(::openat(cgroup, "cgroup.events", O_RDONLY | O_CLOEXEC));
    std::array<char, 256> text{};
    return events && ::read(events.get(), text.data(), text.size() - 1) > 0 &&
           std::strstr(text.data(), "frozen 1") != nullptr;
}

Status enter(int cgroup) {
    const UniqueFd members(::openat(cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC));
    if (!members || ::write(members.get(), "0", 1) != 1) return fail_errno(errno, "cannot enter the cgroup");
    return {};
}

/// It would go on if it were its turn: the machine is loaded, and nobody holds it up.
bool is_runnable(pid_t pid) {
    constexpr size_t kMostOfStat = 1024;
    const auto stat = read_file(fmt::format("/proc/{}/stat", pid), kMostOfStat);
    // "PID (name) STATE …": proc(5).
    const size_t name_end = stat ? stat->rfind(") ") : std::string::npos;
    return name_end != std::string::npos && stat->substr(name_end + 2, 1) == "R";
}

enum class Wait { Over, Frozen, TooLong };

/// Until `answer` can be read, or has no writer any more.
Wait wait_for(int answer, pid_t child, int cgroup, const ChildPatience& patience) {
    using Clock = std::chrono::steady_clock;
    clockid_t clock{};
    const bool has_clock = ::clock_getcpuclockid(child, &clock) == 0;
    auto looked = Clock::now();
    Clock::duration waited{};
    Clock::duration stalled{};
    timespec used{};
    while (true) {
        pollfd ready{answer, POLLIN, 0};
        if (::poll(&ready, 1, static_cast<int>(kBetweenLooks.count())) > 0) return Wait::Over;
        if (cgroup >= 0 && is_frozen(cgroup)) return Wait::Frozen;
        // Where this process stood still, so may have the child: on a loaded machine, in a virtual one that
        // was paused.
        const auto now = Clock::now();
        const auto passed = std::min<Clock::duration>(now - looked, 2 * kBetweenLooks);
        looked = now;
        waited += passed;
        stalled += passed;
        timespec time{};
        const bool worked = has_clock && ::clock_gettime(clock, &time) == 0 &&
                            (time.tv_sec != used.tv_sec || time.tv_nsec != used.tv_nsec);
        if (worked) used = time;
        if (worked || is_runnable(child)) stalled = {};
        if (waited >= patience.all || stalled >= patience.stall) return Wait::TooLong;
    }
}

/// `cgroup` is -1 for the one that this process is in.
Status run(int cgroup, const ChildPatience& patience, const std::function<Status()>& work) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "pipe");
    }
    UniqueFd reader(ends[0]);
    UniqueFd writer(ends[1]);
    const pid_t parent = ::getpid();
    POSTERN_ASSIGN(const Child child, fork_into(cgroup));
    if (child.pid == 0) {
        answer(writer.get(), [&]() -> Status {
            // It has all of the parent's files, a broker's lock among them, and may be held up for long.
            if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent)
                return fail("the process that this one is for has ended");
            if (child.outside) POSTERN_TRY(enter(cgroup));
            return work();
        });
    }
    writer.reset();

    const Wait wait = wait_for(reader.get(), child.pid, cgroup, patience);
    Answer said;
    const bool whole = wait == Wait::Over && ::read(reader.get(), &said, sizeof said) == sizeof said;
    (void)::syscall(SYS_pidfd_send_signal, child.process.get(), SIGKILL, nullptr, 0);
    while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (wait == Wait::Frozen) return Failure(Error{"its cgroup is frozen; thaw it (cgroup.freeze)", ETIME});
    if (wait == Wait::TooLong)
        return Failure(Error{"a process that looks there is held up, and was ended", ETIME});
    if (!whole) return fail("a process of this one's ended without an answer");
    if (!said.failed) return {};
    said.words.back() = '\0';
    return Failure(Error{said.words.data(), said.errnum});
}

}  // namespace

Status in_cgroup(uint64_t cgroup_id, const std::function<Status()>& work) {
    const UniqueFd cgroup = open_cgroup(cgroup_id);
    const int error = errno;
    if (!cgroup) return fail_errno(error, "cannot open the cgroup {}", cgroup_id);
    return run(cgroup.get(), kPatienceWithChild, work);
}

Status in_child(const std::function<Status()>& work, const ChildPatience& patience) {
    return run(-1, patience, work);
}

}  // namespace postern
