// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "broker-core/guard_lock.h"
#include "broker-core/guard_pins.h"
#include "broker-core/result.h"

namespace postern {

/// The guard as a command looks at it or ends something in it: its lock, and what is pinned, if anything.
struct GuardAccess {
    GuardLock lock;
    std::optional<GuardPins> pins;

    /// Refuses without root.
    [[nodiscard]] static Result<GuardAccess> open();
};

/// That the caller is root, in words for whom is not.
[[nodiscard]] Status need_root();

}  // namespace postern
