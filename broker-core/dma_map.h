// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "broker-core/guard_policy.h"
#include "broker-core/plan.h"

namespace postern {

/// What a client that maps its own memory may call on the owner's iommufd: IOMMU_IOAS_MAP, _MAP_FILE and
/// _UNMAP in the address space `ioas`, at addresses of its own choice that lie wholly in its part, for no
/// more than its part's access; and IOMMU_IOAS_IOVA_RANGES. Pure.
[[nodiscard]] std::vector<GuardIoctl> dma_map_ioctls(const PlannedDmaMap& part, uint32_t ioas);

}  // namespace postern
