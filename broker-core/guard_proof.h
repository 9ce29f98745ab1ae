// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "broker-core/guard_policy.h"
#include "broker-core/result.h"

namespace postern {

/// Where a mapping of the page with `offset` (bytes, in the file's offset space) says it lies: GuardWindow's
/// vma_offset. Linux 6.1's vfio-pci tells the physical address, later kernels the offset itself. Maps the
/// page shared through `fd`, which is borrowed and not guarded yet, and looks at the offset column of
/// /proc/self/maps, see proc(5).
[[nodiscard]] Result<uint64_t> measure_vma_offset(int fd, uint64_t offset);

/// The control, before a file is registered: an ioctl that no driver knows is not refused with EPERM, so that
/// it will be the guard that does.
[[nodiscard]] Status prove_unguarded(int fd);

/// Shows that this process may do nothing with `fd`, a file that is shared, or of a guard: what prove_guard()
/// says is refused is.
[[nodiscard]] Status prove_closed(int fd, const FilePolicy& policy);

/// Shows that the guard is in force on `guarded_fd`, registered with `policy`: that ioctl, a mapping and a
/// read far outside, and a remapping of an allowed mapping are refused with EPERM, and something that the
/// policy allows works. The fd is borrowed. The error says what went otherwise; then the file must not be
/// handed to anyone.
[[nodiscard]] Status prove_guard(int guarded_fd, const FilePolicy& policy);

}  // namespace postern
