// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace postern {

/// The namespaces of a process as /proc/self/ns names them, each with bubblewrap's name for it in front of
/// "-namespace" (`user` is ours).
inline constexpr std::array<const char*, 7> kNamespaceNames = {"cgroup", "ipc", "mnt", "net",
                                                               "pid",    "uts", "user"};
inline constexpr std::array<const char*, 7> kNamespaceLinks = {"self/ns/cgroup", "self/ns/ipc", "self/ns/mnt",
                                                               "self/ns/net",    "self/ns/pid", "self/ns/uts",
                                                               "self/ns/user"};

/// What the client says of itself right before exec, when nothing of it can have ended yet. All of it is as
/// the launcher's /proc has it.
struct ClientIdentity {
    pid_t pid = 0;  ///< 0: the launcher's /proc is not its own
    std::array<std::uint64_t, kNamespaceNames.size()> namespaces = {};  ///< inode numbers; 0: not known
};

}  // namespace postern
