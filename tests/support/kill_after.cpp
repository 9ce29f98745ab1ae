// SPDX-License-Identifier: Apache-2.0
// kill-after N CMD [ARG…]: runs CMD and kills it with SIGKILL the moment its N-th system call has returned,
// before it executes another instruction. The first one counted is the execve(2) of CMD itself. With N = 0
// nothing is killed: it tells how many there are.
//
// Only CMD's own process is traced, never its children: a ptracer would change who their parent-death signals
// come from and when their exec ends, which is what the tests are about.
//
// CMD's stdout is a pipe that is read here. "start" is how many system calls CMD had made when its client had
// said something there and CMD itself was quiet since: the end of a launcher's start. Prints one line of
// JSON.

#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "broker-core/json_reader.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;
/// So long nothing of a launcher's start takes that is not asleep until its client ends.
constexpr auto kQuiet = std::chrono::milliseconds(1000);
/// For hangs.
constexpr auto kPatience = std::chrono::seconds(300);

struct Outcome {
    uint64_t calls = 0;             ///< that have returned
    std::optional<uint64_t> start;  ///< how many of them until the client ran
    std::string last;               ///< name of the last one
    int64_t result = 0;             ///< what it returned
    bool killed = false;            ///< by us
    bool closed = false;            ///< nobody holds CMD's stdout any more
    std::string said;
    int status = 0;
};

std::string call_name(uint64_t number) {
    char* name = ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, static_cast<int>(number));
    std::string result = name != nullptr ? name : std::to_string(number);
    std::free(name);
    return result;
}

[[noreturn]] void exec_traced(char** command, int output, const sigset_t& mask) {
    ::dup2(output, STDOUT_FILENO);
    ::sigprocmask(SIG_SETMASK, &mask, nullptr);
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0 && ::raise(SIGSTOP) == 0)
        ::execvp(command[0], command);
    std::fprintf(stderr, "kill-after: %s: %s\n", command[0], std::strerror(errno));
    ::_exit(127);
}

class Tracer {
  public:
    Tracer(pid_t pid, UniqueFd output, UniqueFd signals, uint64_t limit)
        : pid_(pid), output_(std::move(output)), signals_(std::move(signals)), limit_(limit) {}

    Result<Outcome> run() {
        POSTERN_TRY(begin());
        while (running_) {
            std::array<pollfd, 2> events{{{output_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
            if (outcome_.closed) events[0].fd = -1;
            if (::poll(events.data(), events.size(), 50) < 0 && errno != EINTR) {
                const int error = errno;
                return fail_errno(error, "poll");
            }
            if (events[0].revents != 0) hear();
            if (events[1].revents != 0) {
                signalfd_siginfo ignored{};
                (void)!::read(signals_.get(), &ignored, sizeof ignored);
            }
            POSTERN_TRY(take_stops());
            POSTERN_TRY(look_at_the_clock());
        }
        // What the client's processes, which die of the launcher's death, still had to say.
        for (const auto end = Clock::now() + std::chrono::seconds(10);
             !outcome_.closed && Clock::now() < end;) {
            pollfd more{output_.get(), POLLIN, 0};
            if (::poll(&more, 1, 100) > 0) hear();
        }
        return outcome_;
    }

  private:
    Status resume(int signal) {
        if (::ptrace(PTRACE_SYSCALL, pid_, nullptr, signal) == 0 || errno == ESRCH) return {};
        const int error = errno;
        return fail_errno(error, "PTRACE_SYSCALL");
    }

    Status begin() {
        int status = 0;
        if (::waitpid(pid_, &status, 0) != pid_ || !WIFSTOPPED(status))
            return fail("the child does not stop");
        // EXITKILL: should this program die, nothing that it has stopped is left.
        if (::ptrace(PTRACE_SETOPTIONS, pid_, nullptr,
                     PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) != 0 ||
            ::ptrace(PTRACE_CONT, pid_, nullptr, 0) != 0) {
            const int error = errno;
            return fail_errno(error, "ptrace");
        }
        if (::waitpid(pid_, &status, 0) != pid_) return fail("the child is lost");
        if (status >> 8 != (SIGTRAP | PTRACE_EVENT_EXEC << 8)) return fail("the command was not executed");
        last_stop_ = begun_ = Clock::now();
        return resume(0);
    }

    void hear() {
        std::array<char, 4096> buffer{};
        const ssize_t got = ::read(output_.get(), buffer.data(), buffer.size());
        if (got > 0) outcome_.said.append(buffer.data(), static_cast<size_t>(got));
        if (got == 0) outcome_.closed = true;
    }

    Status take_stops() {
        int status = 0;
        while (running_) {
            const pid_t which = ::waitpid(pid_, &status, WNOHANG);
            if (which == 0) return {};
            if (which < 0) {
                const int error = errno;
                return fail_errno(error, "waitpid");
            }
            last_stop_ = Clock::now();
            if (!WIFSTOPPED(status)) {
                outcome_.status = status;
                running_ = false;
                return {};
            }
            const int signal = WSTOPSIG(status);
            if (signal != (SIGTRAP | 0x80)) {
                POSTERN_TRY(resume(signal));
                continue;
            }
            POSTERN_TRY(at_system_call());
        }
        return {};
    }

    Status at_system_call() {
        __ptrace_syscall_info info{};
        if (::ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof info, &info) <= 0) {
            const int error = errno;
            if (error == ESRCH) return {};
            return fail_errno(error, "PTRACE_GET_SYSCALL_INFO");
        }
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) entered_ = info.entry.nr;
        if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
            ++outcome_.calls;
            outcome_.result = info.exit.rval;
            outcome_.last = call_name(entered_);
            if (outcome_.calls == limit_) return end_it();
        }
        return resume(0);
    }

    Status look_at_the_clock() {
        const auto now = Clock::now();
        if (running_ && now - begun_ > kPatience) {
            (void)end_it();
            return fail("{} s have passed after {} system calls", kPatience.count(), outcome_.calls);
        }
        if (outcome_.start || outcome_.said.empty() || now - last_stop_ < kQuiet) return {};
        outcome_.start = outcome_.calls;
        // A start of fewer system calls than N, with a client that stays: it ends where it has come to.
        return limit_ != 0 ? end_it() : Status{};
    }

    Status end_it() {
        outcome_.killed = true;
        if (::kill(pid_, SIGKILL) == 0) return {};
        const int error = errno;
        return fail_errno(error, "kill");
    }

    pid_t pid_;
    UniqueFd output_;
    UniqueFd signals_;
    uint64_t limit_;
    uint64_t entered_ = SYS_execve;
    bool running_ = true;
    Clock::time_point begun_, last_stop_;
    Outcome outcome_;
};

Result<Outcome> trace(uint64_t limit, char** command) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "pipe2");
    }
    UniqueFd output(ends[0]);
    UniqueFd writer(ends[1]);
    sigset_t child_signal;
    sigset_t before;
    ::sigemptyset(&child_signal);
    ::sigaddset(&child_signal, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child_signal, &before);
    UniqueFd signals(::signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK));
    const pid_t pid = ::fork();
    if (pid == 0) exec_traced(command, writer.get(), before);
    if (pid < 0 || !signals) return fail("cannot start {}", command[0]);
    writer.reset();
    return Tracer(pid, std::move(output), std::move(signals), limit).run();
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    uint64_t limit = 0;
    const char* end = argc > 1 ? argv[1] + std::strlen(argv[1]) : nullptr;
    if (argc < 3 || std::from_chars(argv[1], end, limit).ptr != end) {
        std::fprintf(stderr, "usage: kill-after N CMD [ARG…]\n");
        return 2;
    }
    const auto outcome = postern::trace(limit, argv + 2);
    if (!outcome) {
        std::fprintf(stderr, "kill-after: %s\n", outcome.error().message.c_str());
        return 1;
    }
    const postern::Json json{{"calls", outcome->calls},
                             {"start", outcome->start ? postern::Json(*outcome->start) : postern::Json()},
                             {"last", outcome->last},
                             {"result", outcome->result},
                             {"killed", outcome->killed},
                             {"closed", outcome->closed},
                             {"said", outcome->said},
                             {"status", outcome->status}};
    fmt::print("{}\n", json.dump());
    return 0;
}
