// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// By what a container's processes are known: of its init, while that lives.
struct ContainerIdentity {
    std::string cgroup;          ///< folder of the v2 hierarchy, as this process sees it
    uint64_t pid_namespace = 0;  ///< inode of its nsfs file
};

/// What there is to see of a process from outside; it may have ended before all was read.
[[nodiscard]] Result<ContainerIdentity> read_identity(pid_t pid);

/// Whether the cgroup `folder` is `above` or below it. Pure.
[[nodiscard]] bool is_within(std::string_view folder, std::string_view above);

/// Whether the pid namespace of process `pid` is the one with the inode `above`, or one below that.
[[nodiscard]] Result<bool> is_pid_namespace_within(pid_t pid, uint64_t above);

/// The process that connected `socket` (borrowed): SO_PEERPIDFD, and before Linux 6.5 a pidfd of the number
/// that SO_PEERCRED tells, which another process may have by then.
[[nodiscard]] Result<UniqueFd> peer_process(int socket);

/// That the process which connected `socket` is in the container; the error says why it is not.
[[nodiscard]] Status check_container_peer(int socket, const ContainerIdentity& container);

}  // namespace postern
