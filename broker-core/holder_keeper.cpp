// SPDX-License-Identifier: Apache-2.0
#include "broker-core/holder_keeper.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "broker-core/file.h"
#include "broker-core/holder_protocol.h"

namespace postern {
namespace {

/// A holder does nothing that takes time: one that is silent for so long is stopped or stuck.
constexpr timeval kPatienceWithHolder{10, 0};
/// How long a broker that was killed may take to be gone; its children hold its files until they exec, or die
/// with it.
constexpr std::chrono::milliseconds kDying(1000);
constexpr std::chrono::milliseconds kBetweenConnections(10);

Status check_folder(const std::string& folder) {
    struct stat found {};
    if (::lstat(folder.c_str(), &found) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at {}", folder);
    }
    if (!S_ISDIR(found.st_mode) || found.st_uid != ::geteuid() || (found.st_mode & 022) != 0) {
        return fail("{} is not a folder that only its owner, uid {}, may write", folder, ::geteuid());
    }
    return {};
}

/// Held while a holder is looked for and started. A forked child that has not yet called exec holds it too.
Result<UniqueFd> take_lock(const std::string& folder) {
    const std::string path = folder + "/holder.lock";
    UniqueFd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock) {
        const int error = errno;
        return fail_errno(error, "cannot open {}", path);
    }
    while (::flock(lock.get(), LOCK_EX) != 0) {
        const int error = errno;
        if (error == EINTR) continue;
        return fail_errno(error, "cannot lock {}", path);
    }
    return lock;
}

/// The holder's process between fork and exec: only async-signal-safe calls.
struct Start {
    const char* program;
    char* const* argv;
    int listener;
    int failure;  ///< tells errno, or closes on exec

    [[noreturn]] void fail(int error) const {
        (void)!::write(failure, &error, sizeof error);
        ::_exit(127);
    }

    [[noreturn]] void run() {
        constexpr int kFailure = kHolderListener + 1;
        // Out of the broker's process group and session: what is aimed at those is not meant for it.
        if (::setsid() < 0) fail(errno);
        // And nobody's child, so that nobody has to wait for it.
        const pid_t pid = ::fork();
        if (pid < 0) fail(errno);
        if (pid > 0) ::_exit(0);

        const int high_listener = ::fcntl(listener, F_DUPFD_CLOEXEC, kFailure + 1);
        const int high_failure = ::fcntl(failure, F_DUPFD_CLOEXEC, kFailure + 1);
        const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        const int high_null = null < 0 ? -1 : ::fcntl(null, F_DUPFD_CLOEXEC, kFailure + 1);
        if (high_listener < 0 || high_failure < 0 || high_null < 0) fail(errno);
        failure = high_failure;
        if (::dup3(high_failure, kFailure, O_CLOEXEC) < 0) fail(errno);
        failure = kFailure;
        if (::dup2(high_listener, kHolderListener) < 0) fail(errno);
        for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
            if (::dup2(high_null, standard) < 0) fail(errno);
        }
        if (::close_range(kFailure + 1, ~0U, 0) != 0) fail(errno);
        if (::chdir("/") != 0) fail(errno);
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        std::array<char*, 1> environment{nullptr};
        ::execve(program, argv, environment.data());
        fail(errno);
    }
};

/// Starts a holder that listens at `path` by the time this returns.
Status start_holder(const std::string& path) {
    const std::string program = program_prefix() + "/libexec/postern/postern-holder";
    // Nobody listens there, and nobody else is about to: the lock is held.
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        const int error = errno;
        return fail_errno(error, "cannot remove the dead socket {}", path);
    }
    POSTERN_ASSIGN(const UniqueFd listener, listen_at(path, 0600));
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "pipe");
    }
    const UniqueFd failure(ends[0]);
    UniqueFd failure_writer(ends[1]);
    std::string name = "postern-holder";
    std::string socket = path;
    const std::array<char*, 3> argv{name.data(), socket.data(), nullptr};
    Start start{program.c_str(), argv.data(), listener.get(), failure_writer.get()};
    const pid_t pid = ::fork();
    if (pid < 0) {
        const int error = errno;
        return fail_errno(error, "fork");
    }
    if (pid == 0) start.run();
    failure_writer.reset();
    int exec_error = 0;
    const bool failed = ::read(failure.get(), &exec_error, sizeof exec_error) == sizeof exec_error;
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (failed) {
        ::unlink(path.c_str());
        return fail_errno(exec_error, "cannot run {}", program);
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<HolderKeeper>> HolderKeeper::greet(UniqueFd connection, const std::string& path) {
    ucred who{};
    socklen_t size = sizeof who;
    if (::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || who.uid != ::geteuid()) {
        return fail("it listens for uid {}, not for uid {}; remove {}", who.uid, ::geteuid(), path);
    }
    if (::setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatienceWithHolder,
                     sizeof kPatienceWithHolder) != 0 ||
        ::setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatienceWithHolder,
                     sizeof kPatienceWithHolder) != 0) {
        const int error = errno;
        return fail_errno(error, "setsockopt");
    }
    std::unique_ptr<HolderKeeper> keeper(new HolderKeeper(std::move(connection), path));
    POSTERN_ASSIGN(const Packet greeting, keeper->receive_answer());
    if (greeting.text != kHolderDone + std::string(kHolderGreeting)) {
        return fail("it greets with \"{}\", not with \"{}\"; it is of another version of postern",
                    greeting.text.substr(1), kHolderGreeting);
    }
    return keeper;
}

Result<std::unique_ptr<HolderKeeper>> HolderKeeper::connect_or_start(const std::string& folder) {
    POSTERN_TRY(check_folder(folder));
    const std::string path = folder + "/holder.sock";
    const std::string context = fmt::format("holder at {}", path);
    const auto deadline = std::chrono::steady_clock::now() + kDying;
    while (true) {
        Result<std::unique_ptr<HolderKeeper>> keeper;
        {
            POSTERN_ASSIGN(const UniqueFd lock, take_lock(folder));
            auto connection = connect_to(path);
            if (!connection &&
                (connection.error().errnum == ENOENT || connection.error().errnum == ECONNREFUSED)) {
                if (const Status started = start_holder(path); !started)
                    return Failure(Error(started.error()).within(context));
                connection = connect_to(path);
            }
            keeper = connection ? greet(std::move(*connection), path)
                                : Result<std::unique_ptr<HolderKeeper>>(propagate(std::move(connection)));
        }
        if (keeper) return keeper;
        // EBUSY: another broker, perhaps a dying one. ECONNRESET: the holder has just quit.
        const int errnum = keeper.error().errnum;
        if ((errnum != EBUSY && errnum != ECONNRESET) || std::chrono::steady_clock::now() > deadline) {
            return propagate(std::move(keeper), context);
        }
        std::this_thread::sleep_for(kBetweenConnections);
    }
}

Result<Packet> HolderKeeper::receive_answer() {
    auto answer = receive_packet(connection_.get(), kHolderPacket, kMaxKeptFds);
    if (!answer) {
        connection_.reset();
        if (answer.error().errnum == EAGAIN) {
            return Failure(
                Error{fmt::format("it has not answered for {} s", kPatienceWithHolder.tv_sec), ETIMEDOUT});
        }
        return answer;
    }
    if (answer->end) {
        connection_.reset();
        return Failure(Error{"it has ended, and what it kept is lost", ECONNRESET});
    }
    if (answer->text[0] != kHolderRefused) return answer;
    const std::string_view why = std::string_view(answer->text).substr(1);
    int errnum = 0;
    const auto parsed = std::from_chars(why.data(), why.data() + why.size(), errnum);
    const auto blank = static_cast<size_t>(parsed.ptr - why.data());
    return Failure(Error{std::string(why.substr(std::min(why.size(), blank + 1))), errnum});
}

Result<Packet> HolderKeeper::ask(std::string_view request, std::span<const int> fds) {
    if (!connection_) return Failure(Error{"it is gone, and what it kept is lost", ECONNRESET});
    if (auto sent = send_packet(connection_.get(), request, fds); !sent) {
        const int errnum = sent.error().errnum;
        // These leave the connection as it was; behind any other nothing is known about the next answer.
        if (errnum != EMSGSIZE && errnum != EBADF && errnum != ETOOMANYREFS) connection_.reset();
        if (errnum == EPIPE) return Failure(Error{"it has ended, and what it kept is lost", EPIPE});
        return propagate(std::move(sent));
    }
    return receive_answer();
}

Status HolderKeeper::ask_for_done(std::string_view request, std::span<const int> fds) {
    POSTERN_ASSIGN(const Packet answer, ask(request, fds));
    if (answer.text.size() == 1 && answer.text[0] == kHolderDone) return {};
    connection_.reset();
    return Failure(Error{fmt::format("it answered \"{}\"", answer.text), EPROTO});
}

Status HolderKeeper::put(const std::string& name, std::string_view text, std::span<const int> fds) {
    POSTERN_TRY(check_kept(name, text, fds.size()));
    auto done = ask_for_done(joined_entry(kHolderPut, name, text), fds);
    if (!done) return propagate(std::move(done), fmt::format("holder at {}: cannot keep {}", path_, name));
    return {};
}

Status HolderKeeper::remove(const std::string& name) {
    POSTERN_TRY(check_kept(name, {}, 0));
    auto done = ask_for_done(kHolderRemove + name);
    if (!done) return propagate(std::move(done), fmt::format("holder at {}: cannot remove {}", path_, name));
    return {};
}

Result<std::vector<KeptEntry>> HolderKeeper::take_all() {
    std::vector<KeptEntry> entries;
    while (true) {
        const std::string last = entries.empty() ? std::string() : entries.back().name;
        auto answer = ask(kHolderList + last);
        if (!answer) return propagate(std::move(answer), fmt::format("holder at {}: cannot list", path_));
        if (answer->text[0] == kHolderDone) return entries;
        const auto [name, text] = split_entry(std::string_view(answer->text).substr(1));
        if (answer->text[0] != kHolderEntry || name <= last) {
            connection_.reset();
            return fail("holder at {}: it answered \"{}\" with {} behind {}", path_,
                        answer->text.substr(0, 1), name, last);
        }
        entries.push_back({std::string(name), std::string(text), std::move(answer->fds)});
    }
}

Status HolderKeeper::quit() {
    auto done = ask_for_done(std::string(1, kHolderQuit));
    // It closes this behind all else.
    if (done) (void)receive_packet(connection_.get(), kHolderPacket, 0);
    connection_.reset();
    if (!done) return propagate(std::move(done), fmt::format("holder at {}: cannot end it", path_));
    return {};
}

}  // namespace postern
