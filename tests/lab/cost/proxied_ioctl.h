// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"

namespace postern::cost {

/// VFIO_DEVICE_GET_INFO on `device`, made by another process that is asked over a unix socket and sends the
/// result back.
[[nodiscard]] Result<long> cost_of_proxied_ioctl(int device);

}  // namespace postern::cost
