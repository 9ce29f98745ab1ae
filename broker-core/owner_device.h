// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "broker-core/guard_pins.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The unguarded file of the device `bdf`, taken from the launcher that owns it (pidfd_getfd(2)): the one way
/// to end what a client still has mapped. Called under GuardLock.
[[nodiscard]] Result<UniqueFd> take_owner_device(GuardPins& pins, pid_t launcher, const std::string& bdf);

/// Resets the device if it can be reset, then switches its memory space and bus mastering off for as long as
/// its launcher lives: mappings fault (SIGBUS), dma-bufs are moved away, DMA ends. True if it was reset.
[[nodiscard]] Result<bool> stop_device(int device);

}  // namespace postern
