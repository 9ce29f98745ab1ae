// SPDX-License-Identifier: Apache-2.0
#include "broker-core/service_manager.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "broker-core/packet.h"
#include "broker-core/passed_fds.h"

namespace postern {
namespace {

/// A manager that reloads is busy for seconds.
constexpr int kPatienceMs = 30000;

int number_in(const char* variable) {
    const char* text = std::getenv(variable);
    if (text == nullptr) return -1;
    int number = -1;
    const char* end = text + std::strlen(text);
    const auto parsed = std::from_chars(text, end, number);
    return parsed.ec == std::errc() && parsed.ptr == end ? number : -1;
}

}  // namespace

Result<std::vector<NamedFd>> take_passed_fds() {
    std::vector<NamedFd> passed;
    const int count = number_in("LISTEN_FDS");
    const bool ours = number_in("LISTEN_PID") == ::getpid();
    const char* text = std::getenv("LISTEN_FDNAMES");
    std::string names = text != nullptr ? text : "";
    for (const char* variable : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"})
        ::unsetenv(variable);
    if (!ours) return passed;
    names += ':';
    for (int fd = kFirstFd; fd < kFirstFd + count; ++fd) {
        const size_t end = names.find(':');
        std::string name = names.substr(0, end);
        if (end != std::string::npos) names.erase(0, end + 1);
        if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
            const int error = errno;
            return fail_errno(error, "passed fd {} \"{}\" of {} (LISTEN_FDS)", fd, name, count);
        }
        passed.push_back({std::move(name), UniqueFd(fd)});
    }
    return passed;
}

Result<std::optional<ServiceManager>> ServiceManager::from_environment() {
    const char* address = std::getenv("NOTIFY_SOCKET");
    if (address == nullptr || *address == '\0') return std::optional<ServiceManager>();
    auto manager = at(address);
    ::unsetenv("NOTIFY_SOCKET");
    if (!manager) return propagate(std::move(manager), "NOTIFY_SOCKET");
    return std::optional<ServiceManager>(std::move(*manager));
}

Result<ServiceManager> ServiceManager::at(const std::string& address) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    const bool abstract = address.starts_with('@');
    if (address.size() < 2 || (!abstract && address[0] != '/') || address.size() >= sizeof name.sun_path) {
        return fail(
            "service manager's socket \"{}\": is neither a path nor an abstract name of at most {} bytes",
            address, sizeof name.sun_path - 1);
    }
    std::memcpy(name.sun_path, address.data(), address.size());
    if (abstract) name.sun_path[0] = '\0';
    // The end of an abstract name is its length's alone (unix(7)).
    const auto size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size() + (abstract ? 0 : 1));
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    constexpr timeval kLimit{kPatienceMs / 1000, 0};
    if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kLimit, sizeof kLimit) != 0 ||
        ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), size) != 0) {
        const int error = errno;
        return fail_errno(error, "service manager's socket {}", address);
    }
    return ServiceManager(std::move(socket));
}

Status ServiceManager::notify(std::string_view assignments, std::span<const int> fds) const {
    auto sent = send_packet(socket_.get(), assignments, fds);
    if (!sent) return propagate(std::move(sent), "service manager");
    return {};
}

Status ServiceManager::barrier() const {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "pipe");
    }
    const UniqueFd reader(ends[0]);
    UniqueFd writer(ends[1]);
    // Alone in its message; the manager closes the fd, and nobody else has it.
    const int fd = writer.get();
    POSTERN_TRY(notify("BARRIER=1", {&fd, 1}));
    writer.reset();
    pollfd event{reader.get(), 0, 0};
    int ready = 0;
    while ((ready = ::poll(&event, 1, kPatienceMs)) < 0) {
        const int error = errno;
        if (error != EINTR) return fail_errno(error, "poll");
    }
    if (ready == 0) {
        return Failure(
            Error{fmt::format("service manager: it has not taken what was sent for {} s", kPatienceMs / 1000),
                  ETIMEDOUT});
    }
    return {};
}

}  // namespace postern
