// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

// The sandbox's cgroup v2, found by its id: its inode number, as bpf_get_current_cgroup_id() tells it. This
// needs a cgroup v2 hierarchy and CAP_DAC_READ_SEARCH.
// Source: open_by_handle_at(2); kernfs file handles are the id, see fs/kernfs/mount.c.

enum class CgroupState { Gone, Empty, Populated, Unknown };

/// Its folder; errno is ESTALE or ENOENT if there is none with this id any more.
[[nodiscard]] UniqueFd open_cgroup(uint64_t id);

/// What became of it. Unknown where it cannot be asked.
[[nodiscard]] CgroupState cgroup_state(uint64_t id);

/// Who is in it and below it, as this process sees pids (0: not at all). None if it is gone.
[[nodiscard]] Result<std::vector<pid_t>> cgroup_processes(uint64_t id);

/// Kills everything in it and below it (cgroup.kill, Linux 5.14), and waits a few seconds until it is gone.
/// One that is gone already is no error.
[[nodiscard]] Status kill_cgroup(uint64_t id);

}  // namespace postern
