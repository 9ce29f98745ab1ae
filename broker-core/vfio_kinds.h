// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/guard.h"
#include "broker-core/result.h"

namespace postern {

/// Has the guard refuse in every sandbox, but for what is granted, each kind of file by which this machine
/// gives out devices or address spaces: containers, groups, iommufds. Also those that the owner of `bdf` has
/// none of: beside a device that is owned by its cdev, a client that finds a container or a group somewhere
/// must not use it either.
///
/// Opens /dev/vfio/vfio and /dev/iommu for a moment, which may load their modules. A node that is not there,
/// or has no driver, is nobody's way. One that this process must not open for its owner or mode is left out,
/// as its clients are no more than it.
[[nodiscard]] Status learn_vfio_kinds(Guard& guard, const std::string& bdf);

}  // namespace postern
