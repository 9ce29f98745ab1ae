// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "oci-hook/container_state.h"

namespace postern {

/// Where containers that wait for their grant have a folder each.
inline constexpr const char* kContainersDir = "/run/postern/containers";

/// The folder of one container, in which its socket is. A value: who removes it asks for that. Nobody but
/// root gets to it by its path; in the container the socket is bound, and there everybody may connect to it.
class ContainerFolder {
  public:
    explicit ContainerFolder(const ContainerState& state);

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string socket_path() const { return path_ + "/grant.sock"; }

    /// Makes it, in the place of one that was left behind, and a socket that listens in it.
    [[nodiscard]] Result<UniqueFd> listen();
    /// Removes it; one that is not there is no error. If it was made anew since listen(), by the container's
    /// next start, it is left alone.
    void remove() const;
    /// Removes it, whoever made it.
    static void remove(const ContainerState& state);

  private:
    std::string path_;
    ino_t socket_ = 0;  ///< inode of the one that listen() made
};

}  // namespace postern
