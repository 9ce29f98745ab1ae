// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/device_info.h"
#include "broker-core/result.h"

namespace postern {

struct PciBar {
    uint64_t address = 0;
    uint64_t size = 0;
    bool memory = false;  ///< memory space; I/O ports otherwise
};

/// A PCI device as sysfs shows it (Documentation/ABI/testing/sysfs-bus-pci).
struct PciDevice {
    std::string bdf;
    PciId id;
    uint32_t class_code = 0;
    std::string driver;  ///< empty where none is bound
    std::optional<int> iommu_group;
    std::string cdev;            ///< "vfio3": its node in /dev/vfio/devices; empty where there is none
    std::array<PciBar, 7> bars;  ///< 0 to 5 and the ROM
    std::string config;          ///< configuration space; 64 bytes for those who are not root
    std::string reset_methods;

    [[nodiscard]] bool is_bridge() const { return class_code >> 16 == 0x06; }
};

/// "0000:00:02.0" of that or of "00:02.0"; an error where it is neither.
[[nodiscard]] Result<std::string> parse_bdf(std::string_view text);

[[nodiscard]] Result<PciDevice> read_pci_device(const std::string& bdf);
/// All of the machine, by address.
[[nodiscard]] Result<std::vector<PciDevice>> list_pci_devices();
/// Of the link in sysfs alone: the device itself, which may be in use or asleep, is not read. Nothing where
/// there is no such device, or none of an IOMMU.
[[nodiscard]] std::optional<int> iommu_group_of(const std::string& bdf);
[[nodiscard]] std::vector<std::string> iommu_group_members(int group);

/// The forecast of what VFIO will show: BARs that are memory and at least a page map whole.
[[nodiscard]] DeviceInfo forecast_device_info(const PciDevice& device);

/// Whether VFIO can hand out `device`: bound to vfio-pci, in an IOMMU group of which nobody else uses a part.
/// The error says which of it is not so and what to do.
[[nodiscard]] Status check_ownable(const PciDevice& device);

}  // namespace postern
