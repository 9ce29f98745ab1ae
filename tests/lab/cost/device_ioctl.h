// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/vfio.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "broker-core/result.h"
#include "broker-core/vfio_uapi.h"
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

/// Argument of VFIO_DEVICE_FEATURE that asks whether there is a feature; nothing is read or written behind
/// it.
struct FeatureProbe {
    vfio_device_feature feature{};

    explicit FeatureProbe(uint32_t number) {
        feature.argsz = sizeof feature;
        feature.flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | number;
    }
};

/// VFIO_DEVICE_FEATURE, which must end with this errno, or 0.
[[nodiscard]] inline Result<long> cost_of_feature_ioctl(int device, const void* block, int expected) {
    return instructions_per_call(kManyCalls, [&] {
        const int outcome = ::ioctl(device, VFIO_DEVICE_FEATURE, block) == 0 ? 0 : errno;
        return outcome == expected;
    });
}

}  // namespace postern::cost
