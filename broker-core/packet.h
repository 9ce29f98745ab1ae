// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// SCM_MAX_FD, include/net/scm.h: what the kernel carries in one message.
inline constexpr size_t kMaxPacketFds = 253;

/// One message of a SOCK_SEQPACKET socket of AF_UNIX.
struct Packet {
    std::string text;
    std::vector<UniqueFd> fds;
    std::optional<ucred> sender;  ///< who sent it; only where SO_PASSCRED is on
    bool end = false;             ///< the peer is gone, or sent an empty packet; nothing else is set then
};

/// Sends one packet with copies of `fds` (borrowed, at most kMaxPacketFds), whole or not at all. `text` is
/// not empty: the other side could not tell that from the end. `flags` are send(2)'s; MSG_NOSIGNAL is added.
/// Error: errnum is sendmsg(2)'s, EAGAIN among them where the socket does not wait; EMSGSIZE: too large.
[[nodiscard]] Status send_packet(int socket, std::string_view text, std::span<const int> fds, int flags = 0);

/// Receives one packet of at most `text_limit` bytes and `fd_limit` fds, which the caller owns then. With the
/// limit 0, where SO_PASSCRED is on, files never become fds of this process: closing an fd of somebody else's
/// file may wait for them (the flush of FUSE, say). `flags` are recv(2)'s. Error: errnum EMSGSIZE for a
/// larger packet, or where this process has no room for the fds (RLIMIT_NOFILE): the packet is dropped and
/// its fds are closed; EAGAIN for nothing there.
[[nodiscard]] Result<Packet> receive_packet(int socket, size_t text_limit, size_t fd_limit, int flags = 0);

/// A socket that listens at `path`, whose file never has more than the permissions `mode`. A path has at most
/// 107 bytes (unix(7)). Error: errnum EADDRINUSE where something is at `path`, be it a dead socket.
[[nodiscard]] Result<UniqueFd> listen_at(const std::string& path, mode_t mode);

/// A connection to the socket at `path`; waits while more callers queue there than listen(2) let them, for
/// `patience` at most. Error: errnum ENOENT: no such file; ECONNREFUSED: nobody listens; ETIMEDOUT.
[[nodiscard]] Result<UniqueFd> connect_to(const std::string& path,
                                          std::chrono::seconds patience = std::chrono::seconds{100});

}  // namespace postern
