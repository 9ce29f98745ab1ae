// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// What a container sees at /run/postern, from this postern's own tree: `libexec/postern/container`, with the
/// shim and an empty grant.sock.
[[nodiscard]] std::string container_files();
inline constexpr const char* kContainerTarget = "/run/postern";
inline constexpr const char* kGrantSocketName = "grant.sock";

/// The mounts of a container that is being made: they are there, and its root is still a folder in its mount
/// namespace (pivot_root(2) comes after createRuntime hooks).
class ContainerMounts {
  public:
    /// `root`: the folder, as the namespace of `pid` has it.
    [[nodiscard]] static Result<ContainerMounts> open(pid_t pid, const std::string& root);

    /// The empty file that a container's own socket is bound over: /run/postern/grant.sock in the container.
    /// Error: it is not there, or something else is: another slice's socket, a volume.
    [[nodiscard]] Status find_placeholder();

    /// Binds the socket at `path`, of this process's mount namespace, over the placeholder: read-only, and
    /// gone with the container.
    [[nodiscard]] Status bind_socket(const std::string& path);

  private:
    ContainerMounts(UniqueFd own, UniqueFd container, std::string root)
        : own_(std::move(own)), container_(std::move(container)), root_(std::move(root)) {}

    UniqueFd own_;        ///< this process's mount namespace
    UniqueFd container_;  ///< the container's
    std::string root_;
    UniqueFd placeholder_;  ///< O_PATH
};

}  // namespace postern
