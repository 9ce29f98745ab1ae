// SPDX-License-Identifier: Apache-2.0
#include "broker-core/packet.h"

#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

namespace postern {
namespace {

/// More than any kernel's default for net.core.somaxconn, which bounds it.
constexpr int kBacklog = 4096;

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path) {
        return Failure(Error{fmt::format("socket \"{}\": its path has {} bytes, and 1 to {} are possible "
                                         "(unix(7)); use a shorter one",
                                         path, path.size(), sizeof address.sun_path - 1),
                             ENAMETOOLONG});
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Result<UniqueFd> packet_socket() {
    UniqueFd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!made) {
        const int error = errno;
        return fail_errno(error, "cannot make a socket");
    }
    return made;
}

/// Owns all that came with the message at once, so that no way out leaks it.
void take_control(msghdr& message, Packet& packet) {
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET) continue;
        const unsigned char* data = CMSG_DATA(part);
        const size_t length = part->cmsg_len - CMSG_LEN(0);
        if (part->cmsg_type == SCM_RIGHTS) {
            packet.fds.reserve(packet.fds.size() + length / sizeof(int));
            for (size_t at = 0; at + sizeof(int) <= length; at += sizeof(int)) {
                int fd = -1;
                std::memcpy(&fd, data + at, sizeof fd);
                packet.fds.emplace_back(fd);
            }
        } else if (part->cmsg_type == SCM_CREDENTIALS && length >= sizeof(ucred)) {
            ucred sender{};
            std::memcpy(&sender, data, sizeof sender);
            packet.sender = sender;
        }
    }
}

}  // namespace

Status send_packet(int socket, std::string_view text, std::span<const int> fds, int flags) {
    if (text.empty()) return Failure(Error{"cannot send an empty packet: it looks like the end", EINVAL});
    if (fds.size() > kMaxPacketFds) {
        return Failure(Error{
            fmt::format("cannot send {} fds: one packet carries {}", fds.size(), kMaxPacketFds), EMSGSIZE});
    }
    iovec part{const_cast<char*>(text.data()), text.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxPacketFds * sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(fds.size_bytes());
        cmsghdr* rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fds.size_bytes());
        std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
    }
    while (::sendmsg(socket, &message, flags | MSG_NOSIGNAL) < 0) {
        const int error = errno;
        if (error == EINTR) continue;
        return fail_errno(error, "cannot send a packet of {} bytes and {} fds", text.size(), fds.size());
    }
    return {};
}

Result<Packet> receive_packet(int socket, size_t text_limit, size_t fd_limit, int flags) {
    Packet packet;
    packet.text.resize(text_limit);
    // Room for all that can come, whatever the limit: what does not fit the kernel drops, but says only that.
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxPacketFds * sizeof(int)) + CMSG_SPACE(sizeof(ucred))>
        control;
    iovec part{packet.text.data(), packet.text.size()};
    msghdr message{};
    ssize_t got = -1;
    for (bool was_reset = false;;) {
        message = {};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.data();
        message.msg_controllen = fd_limit == 0 ? CMSG_SPACE(sizeof(ucred)) : control.size();
        got = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
        if (got >= 0) break;
        const int error = errno;
        if (error == EINTR) continue;
        // The peer left without reading all of ours. That is told once, before what it sent itself.
        if (error == ECONNRESET && !std::exchange(was_reset, true)) continue;
        if (error == ECONNRESET) {
            got = 0;
            message.msg_controllen = 0;
            break;
        }
        return fail_errno(error, "cannot receive a packet");
    }
    take_control(message, packet);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || packet.fds.size() > fd_limit) {
        const char* what = (message.msg_flags & MSG_TRUNC) != 0 ? "its text is longer"
                           : fd_limit == 0                      ? "it has fds"
                           : (message.msg_flags & MSG_CTRUNC) != 0 && packet.fds.size() <= fd_limit
                               ? "this process had no room for its fds (RLIMIT_NOFILE)"
                               : "it has more fds";
        return Failure(Error{
            fmt::format("packet refused: {}; {} bytes and {} fds are the limit", what, text_limit, fd_limit),
            EMSGSIZE});
    }
    if (got == 0) {
        Packet end;
        end.end = true;
        return end;
    }
    packet.text.resize(static_cast<size_t>(got));
    return packet;
}

Result<UniqueFd> listen_at(const std::string& path, mode_t mode) {
    POSTERN_ASSIGN(const sockaddr_un address, address_of(path));
    POSTERN_ASSIGN(UniqueFd socket, packet_socket());
    // The file gets what the socket has, less the umask (unix_bind_bsd() in net/unix/af_unix.c): at no time
    // may more people connect than `mode` lets.
    if (::fchmod(socket.get(), mode) != 0) {
        const int error = errno;
        return fail_errno(error, "socket {}: fchmod", path);
    }
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        const int error = errno;
        return fail_errno(error, "socket {}: bind", path);
    }
    if (::chmod(path.c_str(), mode) != 0) {
        const int error = errno;
        ::unlink(path.c_str());
        return fail_errno(error, "socket {}: chmod", path);
    }
    if (::listen(socket.get(), kBacklog) != 0) {
        const int error = errno;
        ::unlink(path.c_str());
        return fail_errno(error, "socket {}: listen", path);
    }
    return socket;
}

Result<UniqueFd> connect_to(const std::string& path, std::chrono::seconds patience) {
    POSTERN_ASSIGN(const sockaddr_un address, address_of(path));
    POSTERN_ASSIGN(UniqueFd socket, packet_socket());
    const auto wait_to_send = [&socket](std::chrono::seconds most) {
        const timeval limit{most.count(), 0};
        return ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0;
    };
    if (!wait_to_send(patience)) return fail_errno(errno, "socket {}: SO_SNDTIMEO", path);
    // Interrupted, a connect to AF_UNIX has not begun.
    while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        const int error = errno;
        if (error == EINTR) continue;
        if (error == EAGAIN) return fail_errno(ETIMEDOUT, "socket {}: nobody lets callers in", path);
        return fail_errno(error, "socket {}: connect", path);
    }
    if (!wait_to_send({})) return fail_errno(errno, "socket {}: SO_SNDTIMEO", path);
    return socket;
}

}  // namespace postern
