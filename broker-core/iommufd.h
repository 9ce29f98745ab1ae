// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "broker-core/device_access.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

// The system calls of iommufd and of the VFIO cdev (linux/iommufd.h, linux/vfio.h), one thin wrapper each. No
// decisions here.

namespace postern::iommufd {

/// Opens /dev/iommu: a context of its own.
[[nodiscard]] Result<UniqueFd> open();

/// IOMMU_IOAS_ALLOC: the id of a new address space.
[[nodiscard]] Result<uint32_t> alloc_ioas(int iommufd);
/// IOMMU_VFIO_IOAS, SET: the address space that a group gets which takes the iommufd for its container.
[[nodiscard]] Status set_vfio_ioas(int iommufd, uint32_t ioas);

/// VFIO_DEVICE_BIND_IOMMUFD. A device that is another's is EBUSY.
[[nodiscard]] Status bind_device(int device, int iommufd);
/// VFIO_DEVICE_ATTACH_IOMMUFD_PT.
[[nodiscard]] Status attach_device(int device, uint32_t ioas);

/// IOMMU_IOAS_IOVA_RANGES.
[[nodiscard]] Result<IovaSpace> iova_space(int iommufd, uint32_t ioas);

/// IOMMU_IOAS_MAP_FILE (Linux 6.13) of the whole memfd, else IOMMU_IOAS_MAP of its memory in this process.
[[nodiscard]] Status map(int iommufd, uint32_t ioas, const DmaSource& memory, uint64_t iova, bool read,
                         bool write);
/// IOMMU_IOAS_MAP_FILE of a dma-buf's first `size` bytes (BARs of VFIO devices: Linux 7.3 does, 6.12
/// does not). ENOTTY, EOPNOTSUPP or EINVAL where the kernel cannot.
[[nodiscard]] Status map_dmabuf(int iommufd, uint32_t ioas, int dmabuf, uint64_t size, uint64_t iova,
                                bool read, bool write);
/// IOMMU_IOAS_UNMAP of all that lies in the range; nothing there is no error.
[[nodiscard]] Status unmap(int iommufd, uint32_t ioas, uint64_t iova, uint64_t size);

}  // namespace postern::iommufd
