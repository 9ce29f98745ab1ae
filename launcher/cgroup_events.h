// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace postern {

/// What the kernel counted of a cgroup and all below it; 0 where it has no such controller.
struct CgroupEvents {
    std::uint64_t oom_kills = 0;      ///< processes of it that an OOM killer ended, whosever memory ran out
    std::uint64_t over_memory = 0;    ///< times that its own memory.max could not be kept
    std::uint64_t refused_forks = 0;  ///< times that its pids.max refused one
};

/// Of the cgroup whose folder is `cgroup` (borrowed; -1: none).
[[nodiscard]] CgroupEvents read_cgroup_events(int cgroup);

}  // namespace postern
