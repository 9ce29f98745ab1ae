// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"

namespace postern {

/// Binds the device to vfio-pci and remembers its driver, so that unbind_device() can give it back. A device
/// that is bound already is left alone. Returns the driver it had ("" for none). Sources:
/// Documentation/ABI/testing/sysfs-bus-pci (driver_override), Documentation/driver-api/vfio.rst.
[[nodiscard]] Result<std::string> bind_device(const std::string& bdf);

/// Gives the device back to the driver that bind_device() took it from. Returns that driver ("" for none).
[[nodiscard]] Result<std::string> unbind_device(const std::string& bdf);

}  // namespace postern
