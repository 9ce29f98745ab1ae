// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/grant.h"
#include "broker-core/guard.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The files of a profile's "files", which are guarded by the same policy engine as VFIO devices.
class GrantedFiles {
  public:
    /// Looks up what postern was passed, before it opens fds of its own, and refuses what cannot be guarded:
    /// anything but a character device, a sealed memfd, or a file without an inode of its own in a file
    /// system (a dma-buf, a VM). Of other files the guard does not see all that can be done, such as cutting
    /// them off.
    [[nodiscard]] static Result<GrantedFiles> open(const Profile& profile);

    [[nodiscard]] bool empty() const { return files_.empty(); }

    /// Opens what is named by path, puts each file under the guard and adds it to the grant as "file.NAME".
    [[nodiscard]] Status add_to(Grant& grant, Guard& guard, const SandboxIdentity& sandbox) const;

  private:
    struct Source {
        FileProfile file;
        UniqueFd passed;  ///< empty where it is named by path
    };

    GrantedFiles() = default;

    std::string profile_;
    std::vector<Source> files_;
};

}  // namespace postern
