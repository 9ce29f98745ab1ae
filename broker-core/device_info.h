// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/quantity.h"

namespace postern {

/// A region of a device as VFIO shows it; size 0 where the device has none.
struct RegionInfo {
    uint64_t size = 0;
    uint64_t file_offset = 0;  ///< where the region begins in the device fd's offset space
    bool readable = false;
    bool writable = false;
    std::vector<Range> mappable;  ///< bytes from the region's start that mmap(2) accepts
};

struct IrqInfo {
    uint32_t count = 0;
    bool by_eventfd = false;
};

/// Where the MSI-X structures lie (PCI 3.0, 6.8.2).
struct MsixLocation {
    uint32_t table_bar = 0;
    Range table;
    uint32_t pba_bar = 0;
    Range pba;
};

struct PciId {
    uint16_t vendor = 0;
    uint16_t device = 0;
    uint16_t subsystem_vendor = 0;
    uint16_t subsystem_device = 0;
};

inline constexpr size_t kRegions = 9;  ///< VFIO_PCI_NUM_REGIONS
inline constexpr size_t kIrqs = 5;     ///< VFIO_PCI_NUM_IRQS

/// What a plan needs to know of a device. Read from sysfs before anything is opened (a forecast), and again
/// from VFIO (the truth).
struct DeviceInfo {
    std::string bdf;
    PciId id;
    bool can_reset = false;
    std::array<RegionInfo, kRegions> regions;
    std::array<IrqInfo, kIrqs> irqs;
    std::optional<MsixLocation> msix;
    std::vector<Range> iova_ranges;       ///< what the IOMMU maps; empty where not known yet
    uint64_t iova_alignment = kPageSize;  ///< of addresses and sizes
};

/// What the capability list of a PCI configuration space says of interrupts. Pure; a list that loops or
/// leaves the space ends there.
struct ConfigFacts {
    std::optional<MsixLocation> msix;
    uint32_t msix_vectors = 0;
    uint32_t msi_vectors = 0;
    bool intx = false;
    bool function_level_reset = false;
};
[[nodiscard]] ConfigFacts parse_config_space(std::string_view config);

}  // namespace postern
