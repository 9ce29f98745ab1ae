// SPDX-License-Identifier: Apache-2.0
#pragma once

// The part of include/uapi/linux/iommufd.h (Linux 6.2 and later) that postern names; Debian 12's headers are
// older. Numbers and layouts are kernel ABI. Every struct begins with its own size.

#include <linux/ioctl.h>

#include <cstdint>

namespace postern::uapi {

constexpr uint32_t iommufd_io(uint32_t n) {
    return static_cast<uint32_t>(_IO(';', 0x80)) + n;
}

constexpr uint32_t kIommuIoasAlloc = iommufd_io(1);
constexpr uint32_t kIommuIoasIovaRanges = iommufd_io(4);
constexpr uint32_t kIommuIoasMap = iommufd_io(5);
constexpr uint32_t kIommuIoasUnmap = iommufd_io(6);
constexpr uint32_t kIommuOption = iommufd_io(7);
constexpr uint32_t kIommuVfioIoas = iommufd_io(8);
constexpr uint32_t kIommuIoasMapFile = iommufd_io(15);

/// enum iommufd_ioas_map_flags
constexpr uint32_t kIoasMapFixedIova = 1;
constexpr uint32_t kIoasMapWriteable = 2;
constexpr uint32_t kIoasMapReadable = 4;

struct IommuDestroy {
    uint32_t size, id;
};

struct IommuIoasAlloc {
    uint32_t size, flags, out_ioas_id;
};

struct IommuIoasIovaRanges {
    uint32_t size, ioas_id, num_iovas, reserved;
    uint64_t allowed_iovas, out_iova_alignment;
};

struct IommuIovaRange {
    uint64_t start, last;  ///< inclusive
};

struct IommuIoasMap {
    uint32_t size, flags, ioas_id, reserved;
    uint64_t user_va, length, iova;
};

/// IOMMU_IOAS_MAP_FILE, Linux 6.13.
struct IommuIoasMapFile {
    uint32_t size, flags, ioas_id;
    int32_t fd;
    uint64_t start, length, iova;
};

struct IommuIoasCopy {
    uint32_t size, flags, dst_ioas_id, src_ioas_id;
    uint64_t length, dst_iova, src_iova;
};

struct IommuIoasUnmap {
    uint32_t size, ioas_id;
    uint64_t iova, length;
};

/// enum iommufd_option, enum iommufd_option_ops
constexpr uint32_t kOptionRlimitMode = 0;
constexpr uint16_t kOptionSet = 0;
/// Pinned memory counts against the limit of the process that maps it, and not of all that its user has.
constexpr uint64_t kRlimitOfProcess = 1;
struct IommuOption {
    uint32_t size, option_id;
    uint16_t op, reserved;
    uint32_t object_id;
    uint64_t val64;
};

/// enum iommufd_vfio_ioas_op
constexpr uint16_t kVfioIoasSet = 1;
struct IommuVfioIoas {
    uint32_t size, ioas_id;
    uint16_t op, reserved;
};

static_assert(sizeof(IommuVfioIoas) == 12 && sizeof(IommuIovaRange) == 16);
static_assert(sizeof(IommuIoasIovaRanges) == 32 && sizeof(IommuIoasMap) == 40 &&
              sizeof(IommuIoasMapFile) == 40);
static_assert(sizeof(IommuIoasCopy) == 40 && sizeof(IommuIoasUnmap) == 24 && sizeof(IommuOption) == 24);

}  // namespace postern::uapi
