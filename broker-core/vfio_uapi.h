// SPDX-License-Identifier: Apache-2.0
#pragma once

// What include/uapi/linux/vfio.h of newer kernels defines and Debian 12's copy lacks. Numbers and layouts are
// kernel ABI.

#include <linux/vfio.h>

#include <cstdint>

#ifndef VFIO_DEVICE_FEATURE_DMA_BUF
#define VFIO_DEVICE_FEATURE_DMA_BUF 11
#endif

namespace postern::uapi {

/// struct vfio_region_dma_range, Linux 6.19.
struct RegionDmaRange {
    uint64_t offset;  ///< bytes from the region's start, page aligned
    uint64_t length;  ///< bytes, whole pages
};

/// struct vfio_device_feature_dma_buf with one range: the payload of VFIO_DEVICE_FEATURE GET
/// VFIO_DEVICE_FEATURE_DMA_BUF, which returns the dma-buf's fd.
struct FeatureDmaBuf {
    uint32_t region_index;
    uint32_t open_flags;  ///< O_RDONLY or O_RDWR, with O_CLOEXEC
    uint32_t flags;       ///< must be 0
    uint32_t nr_ranges;
    RegionDmaRange range;
};
static_assert(sizeof(FeatureDmaBuf) == 32);

/// VFIO_DEVICE_BIND_IOMMUFD and VFIO_DEVICE_ATTACH_IOMMUFD_PT, Linux 6.6.
constexpr uint32_t kVfioBindIommufd = static_cast<uint32_t>(_IO(VFIO_TYPE, VFIO_BASE)) + 18;
constexpr uint32_t kVfioAttachIommufd = static_cast<uint32_t>(_IO(VFIO_TYPE, VFIO_BASE)) + 19;
struct VfioBindIommufd {
    uint32_t argsz, flags;
    int32_t iommufd;
    uint32_t out_devid;
};
struct VfioAttachIommufd {
    uint32_t argsz, flags, pt_id;
};
static_assert(sizeof(VfioBindIommufd) == 16 && sizeof(VfioAttachIommufd) == 12);

}  // namespace postern::uapi
