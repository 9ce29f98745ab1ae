// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/guard.h"
#include "broker-core/guard_policy.h"
#include "broker-core/result.h"

namespace postern {

/// Puts `policy` on the struct file behind `fd`, which is borrowed, and shows that it is in force: registered
/// first, proved before anyone gets it, handed over last. Fills in the windows' vma_offset. An error says
/// what went otherwise; then the file must not be handed to anyone. What the proof was refused counts as the
/// grant's: Guard::forget_refusals() when all of its files are guarded.
///
/// A window of a file whose mappings can grow (mremap(2) asks nobody) must reach to the file's end, and that
/// must be sealed against growing; mappings of device files do not grow.
[[nodiscard]] Status guard_file(Guard& guard, int fd, FilePolicy policy);

}  // namespace postern
