// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "broker-core/result.h"

namespace postern {

/// Where a process is in the cgroup v2 hierarchy.
struct CgroupPath {
    std::string folder;  ///< as the process sees it, e.g. /sys/fs/cgroup/user.slice
    unsigned depth = 0;  ///< below the hierarchy's root, or the root of the cgroup namespace
};

/// From the texts of /proc/self/mountinfo and /proc/self/cgroup; pure. Error: no v2 hierarchy is mounted, or
/// not the part of it that the process is in.
Result<CgroupPath> own_cgroup(std::string_view mountinfo, std::string_view membership);

}  // namespace postern
