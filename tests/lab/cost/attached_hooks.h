// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"

namespace postern::cost {

/// LSM hooks of this machine that any BPF program is attached to, whoever attached it, by what the kernel's
/// code does at this moment: a link is gone before its program is.
[[nodiscard]] Result<size_t> attached_hooks();

/// Error: fewer than `count` are, and what is measured now would not be what it is said to be.
[[nodiscard]] Status check_attached(size_t count);

/// Waits until none is. Error: some still are after ten seconds.
[[nodiscard]] Status wait_until_none_is_attached();

}  // namespace postern::cost
