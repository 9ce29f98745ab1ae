// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace postern {

enum class CgroupState { Gone, Empty, Populated, Unknown };

/// What became of the cgroup v2 with this id (its inode number, as bpf_get_current_cgroup_id() tells it).
/// Unknown where there is no cgroup v2 hierarchy to ask or no right to (CAP_DAC_READ_SEARCH).
/// Source: open_by_handle_at(2); kernfs file handles are the id, see fs/kernfs/mount.c.
[[nodiscard]] CgroupState cgroup_state(uint64_t id);

}  // namespace postern
