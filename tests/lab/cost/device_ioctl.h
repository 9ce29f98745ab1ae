// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/vfio.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "broker-core/result.h"
#include "tests/lab/cost/instructions.h"

// The ioctls of a device whose cost is compared: one that any client makes, and one that none may.

namespace postern::cost {

/// VFIO_DEVICE_GET_INFO, which must work.
[[nodiscard]] inline Result<long> cost_of_allowed_ioctl(int device, size_t calls = kManyCalls) {
    vfio_device_info info{};
    info.argsz = sizeof info;
    return instructions_per_call(calls, [&] { return ::ioctl(device, VFIO_DEVICE_GET_INFO, &info) == 0; });
}

/// VFIO_DEVICE_RESET, which must be refused by the guard.
[[nodiscard]] inline Result<long> cost_of_refused_ioctl(int device) {
    return instructions_per_call(kManyCalls,
                                 [&] { return ::ioctl(device, VFIO_DEVICE_RESET) == -1 && errno == EPERM; });
}

}  // namespace postern::cost
