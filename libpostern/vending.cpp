// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "broker-core/cgroup_file.h"
#include "broker-core/file.h"
#include "broker-core/forward.h"
#include "broker-core/grant.h"
#include "broker-core/result.h"
#include "broker-core/vended_grant.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

namespace postern::library {
namespace {

/// SCM_MAX_FD of the kernel's include/net/scm.h.
constexpr size_t kMostFds = 253;

/// The process behind a pidfd, as this process sees it; an error if it is gone or in another pid namespace.
/// proc(5).
Result<long> pid_of(int pidfd) {
    POSTERN_ASSIGN(const std::string info, read_file(fmt::format("/proc/self/fdinfo/{}", pidfd), 1 << 16));
    const size_t at = info.find("\nPid:");
    if (at == std::string::npos) return refuse(EINVAL, "fd {} is no pidfd", pidfd);
    const long pid = std::strtol(info.c_str() + at + std::strlen("\nPid:"), nullptr, 10);
    if (pid > 0) return pid;
    return refuse(ESRCH, "the process behind pidfd {} is gone, or not to be seen from here", pidfd);
}

bool is_alive(int pidfd) {
    pollfd polled = {pidfd, POLLIN, 0};
    return ::poll(&polled, 1, 0) == 0;
}

Status admit(struct libpostern_grant& grant, int pidfd) {
    POSTERN_ASSIGN(const long pid, pid_of(pidfd));
    if (pid == ::getpid())
        return refuse(EINVAL, "pidfd {} is this process, which ends with nobody's grant", pidfd);
    const int errnum = write_cgroup_file(grant.cgroup->path() + "/cgroup.procs", fmt::format("{}", pid));
    if (errnum != 0)
        return fail_errno(errnum, "libpostern: cannot move process {} to {}", pid, grant.cgroup->path());
    // Alive after it was moved, so it was this process that had the number.
    if (!is_alive(pidfd)) return refuse(ESRCH, "process {} ended while it was admitted", pid);
    grant.admitted = true;
    return {};
}

/// Before the kernel refuses it at the other end, where nobody would be told why.
Status check_receivable(const struct libpostern_grant& grant) {
    if (grant.device == nullptr) return {};
    if (grant.forward == Forward::Never) {
        return refuse(
            EPERM,
            "grant {}: forward is \"never\": nobody can receive its device; launch its client, or say "
            "\"sandbox\" or \"anyone\"",
            grant.grant.id);
    }
    if (grant.forward == Forward::Sandbox && !grant.admitted && !grant.client) {
        return refuse(
            EPERM,
            "grant {}: forward is \"sandbox\" and nobody is in its sandbox; admit the receiver first "
            "(libpostern_grant_admit())",
            grant.grant.id);
    }
    return {};
}

/// sendmsg(2) of everything: on a stream the rest follows without the fds.
Status send_all(int socket, msghdr& message, std::string_view text) {
    size_t sent = 0;
    while (sent < text.size()) {
        iovec part = {const_cast<char*>(text.data()) + sent, text.size() - sent};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        const ssize_t count = ::sendmsg(socket, &message, MSG_NOSIGNAL);
        const int error = errno;
        if (count < 0 && error == EINTR) continue;
        if (count < 0) return fail_errno(error, "libpostern: cannot send the grant over socket {}", socket);
        sent += static_cast<size_t>(count);
        message.msg_control = nullptr;
        message.msg_controllen = 0;
    }
    return {};
}

Status vend(struct libpostern_grant& grant, int socket) {
    POSTERN_TRY(check_receivable(grant));
    const std::vector<NamedFd>& fds = grant.grant.fds;
    if (fds.size() > kMostFds)
        return refuse(E2BIG, "grant {}: {} fds; a message carries {}", grant.grant.id, fds.size(), kMostFds);
    POSTERN_TRY(finish_once(grant));
    std::vector<int> numbers;
    numbers.reserve(fds.size());
    for (const NamedFd& each : fds) numbers.push_back(each.fd.get());
    const std::string text = vended_header(fds);

    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFds * sizeof(int))> control{};
    msghdr message{};
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(numbers.size() * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(numbers.size() * sizeof(int));
    std::memcpy(CMSG_DATA(head), numbers.data(), numbers.size() * sizeof(int));
    return send_all(socket, message, text);
}

}  // namespace
}  // namespace postern::library

using postern::library::call_on;

extern "C" {

int libpostern_grant_admit(struct libpostern_grant* grant, int pidfd) {
    return call_on(grant, "grant", [&] { return postern::library::admit(*grant, pidfd); });
}

int libpostern_grant_vend(struct libpostern_grant* grant, int socket) {
    return call_on(grant, "grant", [&] { return postern::library::vend(*grant, socket); });
}

}  // extern "C"
