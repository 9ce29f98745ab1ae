// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/duplicate_fd.h"
#include "broker-core/grant.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/client_environment.h"
#include "launcher/sandbox.h"
#include "launcher/sandbox_from_profile.h"
#include "launcher/sandbox_spec.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

namespace postern::library {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::string> strings(const char* const* list) {
    std::vector<std::string> made;
    for (; *list != nullptr; ++list) made.emplace_back(*list);
    return made;
}

Status launch(struct libpostern_grant& grant, const char* const* argv, const char* const* envp) {
    if (grant.client || grant.exit)
        return refuse(EBUSY, "grant {}: its client was launched already", grant.grant.id);
    POSTERN_ASSIGN(SandboxSpec spec, sandbox_from_profile(grant.sandbox, own_environment()));
    spec.argv = strings(argv);
    if (spec.argv.empty()) return refuse(EINVAL, "argv has no command");
    if (envp != nullptr) spec.env = strings(envp);
    spec.cgroup_fd = grant.cgroup->fd();
    POSTERN_TRY(finish_once(grant));
    for (const NamedFd& each : grant.grant.fds) spec.fds.push_back({each.fd.get(), each.name});
    auto client = start_sandbox(spec);
    if (!client) return Failure(std::move(client.error().error));
    POSTERN_ASSIGN(grant.pidfd, duplicate_fd(client->pidfd(), "the client's pidfd"));
    grant.client.emplace(std::move(*client));
    return {};
}

libpostern_exit exit_of(const ClientExit& exit) {
    switch (exit.kind) {
        case ClientExit::Kind::Exited:
            return {LIBPOSTERN_EXITED, exit.status()};
        case ClientExit::Kind::Signaled:
            return {LIBPOSTERN_SIGNALED, exit.status()};
        case ClientExit::Kind::TimeLimit:
        case ClientExit::Kind::CpuLimit:
            return {LIBPOSTERN_CPU_LIMIT, exit.status()};
        case ClientExit::Kind::Lost:
            break;
    }
    return {LIBPOSTERN_LOST, exit.status()};
}

/// False: the time is over.
bool await_readable(int fd, int timeout_ms) {
    const auto deadline = Clock::now() + std::chrono::milliseconds(std::max(timeout_ms, 0));
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        pollfd polled = {fd, POLLIN, 0};
        const int ready = ::poll(&polled, 1, timeout_ms < 0 ? -1 : static_cast<int>(std::max<long>(left, 0)));
        if (ready > 0) return true;
        if (ready == 0 && left <= 0) return false;
    }
}

/// To wait on without the lock; empty if the client's end is known already.
Result<UniqueFd> pidfd_to_wait_on(const struct libpostern_grant& grant) {
    if (grant.exit) return UniqueFd();
    if (!grant.client) return refuse(ECHILD, "grant {}: no client was launched", grant.grant.id);
    return duplicate_fd(grant.pidfd.get(), "the client's pidfd");
}

}  // namespace
}  // namespace postern::library

using postern::Status;
using postern::library::call_on;
using postern::library::need;
using postern::library::refuse;

extern "C" {

int libpostern_grant_launch(struct libpostern_grant* grant, const char* const* argv, const char* const* envp,
                            int* pidfd) {
    return call_on(grant, "grant", [&]() -> Status {
        POSTERN_TRY(need(argv, "argv"));
        POSTERN_TRY(postern::library::launch(*grant, argv, envp));
        if (pidfd != nullptr) *pidfd = grant->pidfd.get();
        return {};
    });
}

int libpostern_grant_wait(struct libpostern_grant* grant, int timeout_ms, struct libpostern_exit* exit) {
    postern::UniqueFd pidfd;
    const int looked = call_on(grant, "grant", [&]() -> Status {
        POSTERN_ASSIGN(pidfd, postern::library::pidfd_to_wait_on(*grant));
        return {};
    });
    if (looked != 0) return looked;
    const bool over = !pidfd || postern::library::await_readable(pidfd.get(), timeout_ms);
    return call_on(grant, "grant", [&]() -> Status {
        if (!over)
            return refuse(ETIMEDOUT, "grant {}: its client runs after {} ms", grant->grant.id, timeout_ms);
        // Another thread may have been first.
        if (!grant->exit) grant->exit = postern::library::exit_of(grant->client->wait());
        if (exit != nullptr) *exit = *grant->exit;
        return {};
    });
}

int libpostern_grant_signal(struct libpostern_grant* grant, int signal) {
    return call_on(grant, "grant", [&]() -> Status {
        if (grant->exit || !grant->client) return refuse(ESRCH, "grant {}: no client runs", grant->grant.id);
        return grant->client->send(signal);
    });
}

}  // extern "C"
