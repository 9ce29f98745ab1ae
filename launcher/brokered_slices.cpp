// SPDX-License-Identifier: Apache-2.0
#include "launcher/brokered_slices.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>

#include "broker-core/file.h"
#include "broker-core/scope_guard.h"
#include "launcher/child.h"
#include "launcher/job_environment.h"
#include "launcher/supervisor.h"

namespace postern {
namespace {

constexpr long kAskAgain = 10'000'000;  ///< nanoseconds
constexpr size_t kMaxWords = 4096;

/// What the process that launches a client says first; behind it come `length` bytes of words.
struct Opening {
    enum class Kind : int { Started, Busy, Failed } kind = Kind::Failed;
    unsigned slice = 0;  ///< Started, and Failed if `has_slice`
    bool has_slice = false;
    int exit_status = 125;  ///< Failed
    ClientIdentity identity;
    size_t length = 0;  ///< Started: the cgroup's folder; Failed: why
};

void say(int pipe, Opening opening, std::string_view words) {
    words = words.substr(0, kMaxWords);
    opening.length = words.size();
    (void)!::write(pipe, &opening, sizeof opening);
    (void)!::write(pipe, words.data(), words.size());
}

/// As the supervisor of the pool understands it.
ExitRecord record_of(const ClientExit& exit, const std::optional<std::chrono::seconds>& cpu_limit) {
    switch (exit.kind) {
        case ClientExit::Kind::Exited:
            return {CLD_EXITED, exit.value, -1};
        case ClientExit::Kind::CpuLimit:
            return {CLD_KILLED, exit.value,
                    std::chrono::nanoseconds(cpu_limit.value_or(std::chrono::seconds(0))).count() +
                        1'000'000'000};
        case ClientExit::Kind::TimeLimit:
        case ClientExit::Kind::Signaled:
        case ClientExit::Kind::Lost:
            break;
    }
    return {CLD_KILLED, exit.value, -1};
}

/// The process that has the grant: asks, launches, waits, and tells through the pipes.
[[noreturn]] void launch_on_grant(const BrokerPlace& broker, const BrokerRequest& request, SandboxSpec spec,
                                  pid_t pool, int opening_pipe, int status_pipe) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != pool) ::_exit(125);
    Opening opening;
    auto supervisor = Supervisor::create();
    if (!supervisor) {
        say(opening_pipe, opening, supervisor.error().message);
        ::_exit(125);
    }
    auto grant = ask_for_grant(broker.socket, request, [&] {
        while (supervisor->take_signal()) {
        }
        return supervisor->asked_to_end();
    });
    if (!grant) {
        if (grant.error().refusal == BrokerRefusal::Busy) opening.kind = Opening::Kind::Busy;
        say(opening_pipe, opening, grant.error().error.message);
        ::_exit(125);
    }
    opening.slice = grant->slice;
    opening.has_slice = true;
    set_variable(spec.env, "POSTERN_SLICE", std::to_string(grant->slice));
    for (const NamedFd& each : grant->fds) spec.fds.push_back({each.fd.get(), each.name});
    // The pool's to enforce, who kills this process then and with it all below.
    spec.time_limit.reset();
    auto client = start_sandbox(spec);
    if (!client) {
        opening.exit_status = client.error().exit_status;
        say(opening_pipe, opening, client.error().error.message);
        ::_exit(125);
    }
    grant->fds.clear();
    opening.kind = Opening::Kind::Started;
    opening.identity = client->identity();
    say(opening_pipe, opening, grant->cgroup);
    ::close(opening_pipe);
    supervisor->add(std::move(*client));
    const auto ended = supervisor->wait_any();
    if (ended) {
        const StatusRecord record{StatusRecord::Kind::Exit, {}, record_of(ended->exit, spec.cpu_limit)};
        (void)!::write(status_pipe, &record, sizeof record);
    }
    ::_exit(ended ? 0 : 125);
}

bool read_whole(int fd, void* to, size_t size) {
    auto* at = static_cast<char*>(to);
    while (size > 0) {
        const ssize_t got = ::read(fd, at, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        size -= static_cast<size_t>(got);
    }
    return true;
}

Result<std::array<UniqueFd, 2>> make_pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "pipe2");
    }
    return std::array<UniqueFd, 2>{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

tl::unexpected<SliceSource::Refused> refuse(Error error) {
    return tl::unexpected(SliceSource::Refused{{std::move(error), 125}, std::nullopt});
}

}  // namespace

Result<std::unique_ptr<SliceSource>> BrokeredSlices::open(const Profile& profile, std::string device,
                                                          BrokerPlace broker) {
    UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!timer) {
        const int error = errno;
        return fail_errno(error, "timerfd_create");
    }
    return std::unique_ptr<SliceSource>(
        new BrokeredSlices(profile, std::move(device), std::move(broker), std::move(timer)));
}

tl::expected<std::optional<SliceSource::Started>, SliceSource::Refused> BrokeredSlices::start(
    SandboxSpec spec) {
    uint64_t expired = 0;
    (void)!::read(timer_.get(), &expired, sizeof expired);
    auto opening_pipe = make_pipe();
    auto status_pipe = make_pipe();
    if (!opening_pipe) return refuse(std::move(opening_pipe.error()));
    if (!status_pipe) return refuse(std::move(status_pipe.error()));
    const auto time_limit = spec.time_limit;
    const auto cpu_limit = spec.cpu_limit;
    const bool own_session = spec.new_session;
    const pid_t self = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) {
        const int error = errno;
        return refuse(Error{"fork: " + errno_text(error), error});
    }
    if (pid == 0) {
        (*opening_pipe)[0].reset();
        (*status_pipe)[0].reset();
        launch_on_grant(broker_, grant_request(profile_, device_, std::nullopt, false), std::move(spec), self,
                        (*opening_pipe)[1].get(), (*status_pipe)[1].get());
    }
    (*opening_pipe)[1].reset();
    (*status_pipe)[1].reset();
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    ScopeGuard reap([pid] {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    });
    Opening opening;
    std::string words;
    const bool heard =
        read_whole((*opening_pipe)[0].get(), &opening, sizeof opening) && opening.length <= kMaxWords;
    if (heard) {
        words.resize(opening.length);
        if (!read_whole((*opening_pipe)[0].get(), words.data(), words.size()))
            words = "its launcher was killed";
    }
    if (!heard || !pidfd) return refuse(Error{"the process that was to launch the client was killed", 0});
    if (opening.kind == Opening::Kind::Busy) {
        const itimerspec soon{{0, 0}, {0, kAskAgain}};
        ::timerfd_settime(timer_.get(), 0, &soon, nullptr);
        return std::nullopt;
    }
    if (opening.kind == Opening::Kind::Failed) {
        return tl::unexpected(Refused{{Error{std::move(words), 0}, opening.exit_status},
                                      opening.has_slice ? std::optional(opening.slice) : std::nullopt});
    }
    reap.dismiss();
    UniqueFd& cgroup = cgroups_[opening.slice];
    cgroup.reset(::open(words.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return Started{opening.slice,
                   RunningClient::behind(pid, std::move(pidfd), std::move((*status_pipe)[0]),
                                         opening.identity, {time_limit, cpu_limit, own_session}),
                   cgroup.get()};
}

/// Cleaning it is the broker's, who has seen the end, too.
Status BrokeredSlices::end(unsigned slice) {
    cgroups_.erase(slice);
    return {};
}

Status BrokeredSlices::reset() {
    return fail(
        "device {}: is a broker's, which others may be using: only its slices can be reset (--reset slice)",
        device_);
}

}  // namespace postern
