// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "broker-core/dmabuf_probe.h"
#include "broker-core/plan.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"

namespace postern {

/// What is made of the dma-buf of a window.
enum class DmabufUse {
    None,    ///< it is not handed out
    Import,  ///< handed out, for other drivers to import; the window is mapped by the device fd, if at all
    Map      ///< handed out, and the window is mapped by it
};

/// `facts` of the window's dma-buf; nothing where there is none. One that can be mapped must be the window
/// and no more: of the window's size, to be mapped with its access, not longer, not to grow, not to be
/// written where the window has access "r". One that is otherwise is not handed out, and an error where
/// nothing else leads to the window. Pure.
[[nodiscard]] Result<DmabufUse> choose_dmabuf(const PlannedWindow& window,
                                              const std::optional<DmabufFacts>& facts);

/// Whether a client needs the device fd: for an ioctl, for a window that it reads by pread(2), or that it
/// maps by nothing else; and where there is no window at all, for then nothing stands in for the fd. `uses`
/// goes with `windows`. Pure.
[[nodiscard]] bool needs_device_fd(const std::vector<IoctlRule>& ioctls,
                                   const std::vector<PlannedWindow>& windows,
                                   const std::vector<DmabufUse>& uses);

/// Whether clients of `profile` will need no device fd on a kernel that can map the dma-bufs of its windows.
/// Pure.
[[nodiscard]] bool dmabufs_may_do(const DeviceProfile& profile);

}  // namespace postern
