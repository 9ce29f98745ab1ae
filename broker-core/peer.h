// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "broker-core/broker_access.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// Who connected a unix socket, and with which rights then: what is passed on later changes nothing of it.
struct Peer {
    pid_t pid = 0;
    Caller caller;
};

/// SO_PEERCRED and SO_PEERGROUPS (unix(7), Linux 4.13) of a connected socket, which is borrowed.
[[nodiscard]] Result<Peer> read_peer(int socket);

/// The process behind a pidfd, as this process sees pids: the line "Pid" of its fdinfo (pidfd_open(2)). 0: it
/// has ended, or is of another pid namespace. Error: `fd` is no pidfd.
[[nodiscard]] Result<pid_t> pid_of(int pidfd);

/// A pidfd of the process that has the number `pid` now. Error: errnum ESRCH: there is none.
[[nodiscard]] Result<UniqueFd> pidfd_of(pid_t pid);

/// Whether the process has ended. A pidfd is readable then.
[[nodiscard]] bool has_ended(int pidfd);

/// Its name, as it calls itself, for people: without control characters. Empty if it has ended.
[[nodiscard]] std::string command_name(pid_t pid);

}  // namespace postern
