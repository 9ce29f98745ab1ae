// SPDX-License-Identifier: Apache-2.0
#include "broker-core/programs.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <utility>

#include "broker-core/file.h"
#include "broker-core/passed_fds.h"
#include "broker-core/scope_guard.h"
#include "broker-core/unique_fd.h"

extern char** environ;

namespace postern {
namespace {

int interrupted_by = 0;

bool executable(const std::string& path) {
    std::error_code code;
    return std::filesystem::is_regular_file(path, code) && ::access(path.c_str(), X_OK) == 0;
}

/// The child between vfork and exec, in its parent's memory: only async-signal-safe calls. Reports errno
/// through `failure`.
struct Child {
    const char* file;
    char* const* argv;
    char* const* envp;
    char* listen_pid;  ///< points into envp; overwritten with the child's pid
    size_t listen_pid_room;
    const char* folder;
    std::vector<int> fds;
    int output;
    int failure;
    const ChildMark* mark;
    pid_t parent;

    [[noreturn]] void fail() const {
        const int error = errno;
        (void)!::write(failure, &error, sizeof error);
        ::_exit(127);
    }

    [[noreturn]] void run() {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(127);  // it died before the line above
        if (mark != nullptr && !mark->apply()) fail();
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        const int first_free = kFirstFd + static_cast<int>(fds.size()) + 2;
        const int high_failure = ::fcntl(failure, F_DUPFD_CLOEXEC, first_free);
        // Two passes: a source may stand where another is to go.
        for (int& fd : fds) {
            fd = ::fcntl(fd, F_DUPFD_CLOEXEC, first_free);
            if (fd < 0) fail();
        }
        if (::dup2(output, STDOUT_FILENO) < 0 || ::dup2(output, STDERR_FILENO) < 0) fail();
        failure = high_failure;
        for (size_t i = 0; i < fds.size(); ++i) {
            if (::dup2(fds[i], kFirstFd + static_cast<int>(i)) < 0) fail();
        }
        ::close_range(static_cast<unsigned>(kFirstFd) + static_cast<unsigned>(fds.size()), ~0U,
                      CLOSE_RANGE_CLOEXEC);
        if (::chdir(folder) != 0) fail();
        auto pid = static_cast<unsigned long>(::getpid());
        std::array<char, 24> digits{};
        size_t count = 0;
        for (; pid != 0; pid /= 10) digits[count++] = static_cast<char>('0' + pid % 10);
        for (size_t i = 0; i < count && i + 1 < listen_pid_room; ++i) listen_pid[i] = digits[count - 1 - i];
        listen_pid[count] = '\0';
        ::execve(file, argv, envp);
        fail();
    }
};

/// In a frame of its own: what the child does to the stack is not the caller's. A copy of the memory would
/// cost more than the program, which a pool runs twice between two jobs.
[[gnu::noinline]] pid_t start(Child& child) {
    const pid_t pid = ::vfork();
    if (pid == 0) child.run();
    return pid;
}

/// Copies the program's output to our stderr until it ends; remembers the last line that says anything.
class OutputRelay {
  public:
    explicit OutputRelay(std::string* output) : output_(output) {}

    void take(std::string_view bytes) {
        if (output_ != nullptr) {
            output_->append(bytes);
        } else {
            (void)!::write(STDERR_FILENO, bytes.data(), bytes.size());
        }
        for (const char c : bytes) {
            if (c != '\n') {
                line_ += c;
                continue;
            }
            end_line();
        }
    }
    std::string last_line() {
        end_line();
        return last_;
    }

  private:
    void end_line() {
        if (line_.find_first_not_of(" \t\r") != std::string::npos) last_ = line_.substr(0, 400);
        line_.clear();
    }
    std::string* output_;
    std::string line_;
    std::string last_;
};

}  // namespace

Result<std::string> find_program(const std::string& name, const std::string& folder) {
    std::vector<std::string> places;
    if (name.starts_with('/')) {
        places = {name};
    } else {
        places = {folder + "/" + name};
        if (name.find('/') == std::string::npos) {
            places.push_back(program_prefix() + "/examples/" + name);
            places.push_back(program_prefix() + "/libexec/postern/" + name);
            const char* path = std::getenv("PATH");
            std::stringstream folders{std::string(path != nullptr ? path : "")};
            for (std::string each; std::getline(folders, each, ':');)
                places.push_back(fmt::format("{}/{}", each, name));
        }
    }
    for (const std::string& place : places) {
        if (executable(place)) return place;
    }
    return fail(
        "program {}: not found as an executable file in {}", name,
        places.size() == 1 ? places[0] : folder + ", examples/ and libexec/postern/ beside postern, or PATH");
}

Status run_program(const ProgramLine& line, const std::string& folder, const BorrowedFds& fds,
                   std::string* output_text, ProgramSignals on_signals, const ChildMark* mark) {
    const std::string context = fmt::format("program {}", line[0]);
    POSTERN_ASSIGN(const std::string file, find_program(line[0], folder));

    std::vector<std::string> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        if (std::strncmp(*entry, "LISTEN_", 7) != 0) environment.emplace_back(*entry);
    }
    std::vector<std::string_view> names;
    names.reserve(fds.size());
    for (const auto& [name, fd] : fds) names.push_back(name);
    environment.push_back(fmt::format("LISTEN_FDS={}", fds.size()));
    environment.push_back(fmt::format("LISTEN_FDNAMES={}", fmt::join(names, ":")));
    const std::string prefix = "LISTEN_PID=";
    constexpr size_t kPidRoom = 24;
    environment.push_back(prefix + std::string(kPidRoom, '\0'));
    const auto pointers = [](auto& strings) {
        std::vector<char*> result;
        result.reserve(strings.size() + 1);
        for (auto& each : strings) result.push_back(const_cast<char*>(each.data()));
        result.push_back(nullptr);
        return result;
    };
    const std::vector<char*> envp = pointers(environment);
    const std::vector<char*> argv = pointers(line);

    std::array<int, 2> output_pipe{};
    std::array<int, 2> failure_pipe{};
    if (::pipe2(output_pipe.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "{}: pipe", context);
    }
    UniqueFd output(output_pipe[0]);
    UniqueFd output_writer(output_pipe[1]);
    if (::pipe2(failure_pipe.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "{}: pipe", context);
    }
    UniqueFd failure(failure_pipe[0]);
    UniqueFd failure_writer(failure_pipe[1]);

    Child child{.file = file.c_str(),
                .argv = argv.data(),
                .envp = envp.data(),
                .listen_pid = environment.back().data() + prefix.size(),
                .listen_pid_room = kPidRoom,
                .folder = folder.c_str(),
                .fds = {},
                .output = output_writer.get(),
                .failure = failure_writer.get(),
                .mark = mark,
                .parent = ::getpid()};
    for (const auto& [name, fd] : fds) child.fds.push_back(fd);

    sigset_t ending;
    ::sigemptyset(&ending);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&ending, signal);
    const UniqueFd signals(
        on_signals == ProgramSignals::End ? ::signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK) : -1);

    const pid_t pid = start(child);
    if (pid < 0) {
        const int error = errno;
        return fail_errno(error, "{}: vfork", context);
    }
    output_writer.reset();
    failure_writer.reset();
    int status = 0;
    ScopeGuard reap([&] {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, &status, 0);
    });

    int exec_error = 0;
    if (::read(failure.get(), &exec_error, sizeof exec_error) == sizeof exec_error) {
        return fail_errno(exec_error, "{}: cannot run {}", context, file);
    }
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    OutputRelay relay(output_text);
    std::array<pollfd, 3> events{
        {{output.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}, {process.get(), POLLIN, 0}}};
    for (bool running = true; running;) {
        if (::poll(events.data(), events.size(), -1) < 0) {
            const int error = errno;
            if (error == EINTR) continue;
            return fail_errno(error, "{}: poll", context);
        }
        if ((events[1].revents & POLLIN) != 0) {
            signalfd_siginfo info{};
            (void)!::read(signals.get(), &info, sizeof info);
            interrupted_by = static_cast<int>(info.ssi_signo);
            return fail("{}: interrupted by signal {} and killed", context,
                        ::strsignal(static_cast<int>(info.ssi_signo)));
        }
        // A grandchild may keep the pipe open: the program's own end is what counts.
        running = (events[2].revents & POLLIN) == 0;
        std::array<char, 4096> buffer{};
        while ((events[0].revents & (POLLIN | POLLHUP)) != 0) {
            const ssize_t got = ::read(output.get(), buffer.data(), buffer.size());
            if (got > 0) relay.take({buffer.data(), static_cast<size_t>(got)});
            if (got <= 0) {
                events[0].fd = -1;
                break;
            }
            pollfd more{output.get(), POLLIN, 0};
            if (::poll(&more, 1, 0) <= 0) break;
        }
    }
    reap.dismiss();
    if (::waitpid(pid, &status, 0) != pid) {
        const int error = errno;
        return fail_errno(error, "{}: waitpid", context);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    const std::string said = relay.last_line();
    return fail("{}: {}{}", context,
                WIFSIGNALED(status) ? fmt::format("killed by signal {}", ::strsignal(WTERMSIG(status)))
                                    : fmt::format("exit status {}", WEXITSTATUS(status)),
                said.empty() ? std::string() : fmt::format(": {}", said));
}

int take_interruption() {
    return std::exchange(interrupted_by, 0);
}

}  // namespace postern
