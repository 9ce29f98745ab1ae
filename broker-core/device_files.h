// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "broker-core/device_access.h"
#include "broker-core/grant.h"
#include "broker-core/guard.h"
#include "broker-core/plan.h"
#include "broker-core/quantity.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// Where the files of a device come from.
struct DeviceSource {
    /// Another struct file of the device, for a client. Asked for only if the client needs one.
    std::function<Result<UniqueFd>()> open;
    bool shared = false;  ///< that is the owner's own: it cannot be opened twice
    /// A dma-buf of whole pages of a region. Error: there is none.
    std::function<Result<UniqueFd>(uint32_t region, Range pages, bool writable)> export_pages;
    /// The owner's files (device, group, container, iommufd), borrowed: another one of their kinds is refused
    /// in every sandbox, as is one of the other kinds that the machine has. The first is the device's, which
    /// must not be guarded.
    std::vector<int> owned;
    /// What to say where a window has no dma-buf and no other way: "add the method \"mmap\"".
    std::string remedy;
};

/// What every file of a grant's device has in its policy; what may be done with it is the caller's to add.
/// Pure.
[[nodiscard]] FilePolicy policy_of(const Grant& grant, const DevicePlan& plan,
                                   const SandboxIdentity& sandbox);

/// Of a device that this process owns; `access` is borrowed.
[[nodiscard]] DeviceSource device_source(const DeviceAccess& access, std::string remedy);

/// Adds to the grant the files by which its client reaches the windows and ioctls of `slice`, and what the
/// manifest says of them. Dma-bufs of windows, where the source makes them; and the device fd, unless the
/// dma-bufs do for all that is granted (needs_device_fd()).
///
/// With a guard, the device fd and every dma-buf are registered and proved to be guarded (guard_file()): so a
/// grant is over when all of them are closed, unmapped and imported by nobody any more, forwards as the
/// profile says and can be revoked, with a device fd or without. What imports a dma-buf, before or after, is
/// cut off by a reset alone. Without a guard the device fd is always there, for everything.
[[nodiscard]] Status add_device_files(Grant& grant, const DevicePlan& plan, const SlicePlan& slice,
                                      const DeviceSource& source, Guard* guard,
                                      const SandboxIdentity& sandbox);

}  // namespace postern
