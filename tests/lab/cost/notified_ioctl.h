// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"

namespace postern::cost {

/// VFIO_DEVICE_GET_INFO on `device` in a process whose every ioctl a supervisor is asked about by seccomp's
/// user notification; it looks at nothing and says yes.
[[nodiscard]] Result<long> cost_of_notified_ioctl(int device);

}  // namespace postern::cost
