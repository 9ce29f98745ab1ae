// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/device_info.h"
#include "broker-core/json_reader.h"
#include "broker-core/profile.h"
#include "broker-core/quantity.h"
#include "broker-core/result.h"

namespace postern {

struct PlannedWindow {
    std::string name;
    uint32_t region = 0;
    uint64_t offset = 0;       ///< bytes from the region's start
    uint64_t length = 0;       ///< bytes
    uint64_t file_offset = 0;  ///< the same place in the device fd's offset space
    Access access;
    bool by_mmap = false;
    bool by_dmabuf = false;
    bool by_pread = false;
};

struct PlannedDma {
    std::string name;
    uint64_t size = 0;
    uint64_t iova = 0;
    Access access;
    DmaMemory::HugePages hugepages = DmaMemory::HugePages::Auto;
};

struct PlannedDmaMap {
    uint64_t iova = 0;
    uint64_t size = 0;  ///< bytes
    Access access;
};

/// A window, in whole pages, in another device's I/O address space.
struct PlannedPeer {
    std::string window;
    std::string device;  ///< PCI address of the other one
    uint32_t region = 0;
    Range pages;  ///< bytes from the region's start
    uint64_t iova = 0;
    Access access;
};

struct PlannedIrq {
    std::string name;
    uint32_t index = 0;
    uint32_t vector = 0;
};

struct SlicePlan {
    unsigned slice = 0;
    std::vector<PlannedWindow> windows;
    std::vector<PlannedDma> dma;
    std::optional<PlannedDmaMap> dma_map;
    std::vector<PlannedPeer> peers;
    std::vector<PlannedIrq> irqs;
};

/// All that will be opened, mapped, wired and guarded, with its numbers. A value: printable, comparable,
/// made without privileges.
struct DevicePlan {
    std::string bdf;
    std::string profile;  ///< its name
    PciId id;
    std::vector<SlicePlan> slices;
    std::vector<IoctlRule> ioctls;
    Programs setup;
    Programs teardown;
    std::string folder;  ///< of the profile: where setup and teardown programs run
    bool bus_master = false;
    bool reset_before = false;
    bool reset_after = false;
    Forward forward = Forward::Sandbox;
};

/// The plan of all slices of `profile` on the device, or the reason why it does not fit: other hardware, a
/// window outside of its BAR, of what can be mapped or across MSI-X structures, missing vectors, IOVAs that
/// the IOMMU does not map, no reset. Pure.
[[nodiscard]] Result<DevicePlan> plan_device(const Profile& profile, const DeviceInfo& info);

/// Whether memory may be mapped there for the device: as its IOMMU says, and where nothing of its own plan is
/// or may come to be. Pure.
[[nodiscard]] Status check_room(const DevicePlan& plan, const DeviceInfo& info, uint64_t iova, uint64_t size);

/// An error for a profile with "peers": who owns one device only has none to map a window for. Pure.
[[nodiscard]] Status check_without_peers(const Profile& profile);

/// `slice` as given on the command line, checked against the plan.
[[nodiscard]] Status check_slice(const Profile& profile, uint64_t slice);

[[nodiscard]] Json to_json(const DevicePlan& plan);

}  // namespace postern
