// SPDX-License-Identifier: Apache-2.0
#include "broker-core/on_demand.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <string_view>
#include <thread>

#include "broker-core/file.h"
#include "broker-core/packet.h"
#include "broker-core/user_namespace.h"

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

/// Loading the guard takes a second or so, more where a machine is loaded.
constexpr std::chrono::seconds kPatienceToStart{60};
constexpr std::chrono::milliseconds kBetweenCalls{20};
/// Milliseconds for a broker that is there to say so. One that is slower is found to be running already.
constexpr int kGreeting = 500;
/// For one that serves by now, or has ended.
constexpr int kFirstGreeting = 5000;

/// To where the machine's own mounts are. podman starts the runtime of a container with a user namespace
/// among mounts of its own, without those below /sys/kernel, and a broker would keep them from going, too.
void leave_mounts() {
    const int machine = ::open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (machine >= 0) (void)::setns(machine, CLONE_NEWNS);
}

/// The broker's process between fork and exec: only async-signal-safe calls.
[[noreturn]] void become_broker(const char* program, char* const* argv, int errors) {
    // In no one's session, and nobody's child: the container's runtime waits for its own alone.
    if (::setsid() < 0) ::_exit(1);
    const pid_t pid = ::fork();
    if (pid != 0) ::_exit(pid < 0 ? 1 : 0);
    leave_mounts();
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || ::dup2(null, STDIN_FILENO) < 0 || ::dup2(null, STDOUT_FILENO) < 0 ||
        ::dup2(errors, STDERR_FILENO) < 0 || ::close_range(STDERR_FILENO + 1, ~0U, 0) != 0 ||
        ::chdir("/") != 0)
        ::_exit(1);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    std::array<char*, 2> environment{path, nullptr};
    ::execve(program, argv, environment.data());
    constexpr std::string_view kMissing = "postern: cannot run postern-full, which has the broker\n";
    (void)!::write(STDERR_FILENO, kMissing.data(), kMissing.size());
    ::_exit(127);
}

/// Starts one and waits until it serves or has ended. Returns what it said until then.
Result<std::string> start_broker(const std::string& socket, const std::string& config) {
    const std::string program = program_prefix() + "/libexec/postern/postern-full";
    std::array<std::string, 7> words{"postern", "broker",   "--on-demand", "--socket",
                                     socket,    "--config", config};
    std::array<char*, 8> argv{};
    for (size_t i = 0; i < words.size(); ++i) argv[i] = words[i].data();
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "pipe");
    }
    const UniqueFd reader(ends[0]);
    UniqueFd writer(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0) {
        const int error = errno;
        return fail_errno(error, "fork");
    }
    if (pid == 0) become_broker(program.c_str(), argv.data(), writer.get());
    writer.reset();
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    // It lets go of the pipe when it serves.
    std::string said;
    std::array<char, 512> part{};
    while (true) {
        const ssize_t got = ::read(reader.get(), part.data(), part.size());
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        said.append(part.data(), static_cast<size_t>(got));
    }
    return said;
}

/// Whether nobody is behind a connection. postern-holder keeps the socket of a broker that was told to end
/// while its grants go on, so that callers wait at it for the next one; systemd starts that by itself.
bool is_unattended(const UniqueFd& connection, const std::string& path, int patience) {
    pollfd greeting{connection.get(), POLLIN, 0};
    if (::poll(&greeting, 1, patience) != 0) return false;
    return ::access((path.substr(0, path.rfind('/')) + "/holder.sock").c_str(), F_OK) == 0;
}

/// The broker has closed its door while this call was at it.
bool has_hung_up(const UniqueFd& connection) {
    char first = 0;
    const ssize_t got = ::recv(connection.get(), &first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

std::string_view last_line(std::string_view text) {
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    const size_t before = text.rfind('\n');
    return before == std::string_view::npos ? text : text.substr(before + 1);
}

std::string_view without_name(std::string_view line) {
    constexpr std::string_view kName = "postern: ";
    if (line.starts_with(kName)) line.remove_prefix(kName.size());
    return line;
}

}  // namespace

Result<UniqueFd> need_broker(const std::string& path, const std::string& config) {
    const auto deadline = Clock::now() + kPatienceToStart;
    while (true) {
        auto connection = connect_to(path);
        const bool may_start = is_machines_root();
        if (connection && may_start && is_unattended(*connection, path, kGreeting)) {
            POSTERN_ASSIGN(const std::string said, start_broker(path, config));
            if (said.find(kBrokerRunsAlready) != std::string::npos ||
                !is_unattended(*connection, path, kFirstGreeting))
                return connection;
            return fail("{}", without_name(last_line(said)));
        }
        if (connection && has_hung_up(*connection) && Clock::now() < deadline) {
            std::this_thread::sleep_for(kBetweenCalls);
            continue;
        }
        if (connection) return may_start ? std::move(connection) : UniqueFd();
        const int errnum = connection.error().errnum;
        if (errnum != ENOENT && errnum != ECONNREFUSED) return connection;
        if (!may_start) {
            return fail(
                "no broker serves {}, and only root can start one; ask for `systemctl enable --now "
                "postern-broker.socket`",
                path);
        }
        POSTERN_ASSIGN(const std::string said, start_broker(path, config));
        connection = connect_to(path);
        if (connection) return connection;
        // Another one is being started, or is about to end.
        const bool other = said.find(kBrokerRunsAlready) != std::string::npos;
        if (!other || Clock::now() > deadline) {
            const std::string_view why = without_name(last_line(said));
            return fail("{}", why.empty() ? "a broker could not be started, and did not say why" : why);
        }
        std::this_thread::sleep_for(kBetweenCalls);
    }
}

}  // namespace postern
