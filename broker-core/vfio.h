// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/device_info.h"
#include "broker-core/pci.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

// The system calls of VFIO (linux/vfio.h), one thin wrapper each. No decisions here.

namespace postern::vfio {

/// Opens a device node for reading and writing. The error names who has it open, or says what to do; for one
/// that is not there, `hint_absent`.
[[nodiscard]] Result<UniqueFd> open_node(const std::string& path, std::string_view hint_absent);
/// "pid 812 (postern)" of a process that has `path` open, or empty; for an error message only.
[[nodiscard]] std::string holder_of(const std::string& path);

/// Opens /dev/vfio/vfio. The error tells a missing module from missing rights.
[[nodiscard]] Result<UniqueFd> open_container();

/// Opens /dev/vfio/GROUP; a group that another process has open is EBUSY, and the error names that process.
[[nodiscard]] Result<UniqueFd> open_group(int group);

/// VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER, and VFIO_SET_IOMMU with VFIO_TYPE1v2_IOMMU.
[[nodiscard]] Status attach_group(int container, int group);
/// The same with an iommufd for the container, in the address space that was set for it.
[[nodiscard]] Status attach_group_to_iommufd(int iommufd, int group);

/// VFIO_GROUP_GET_DEVICE_FD. Every call gives a new struct file of the same device.
[[nodiscard]] Result<UniqueFd> get_device(int group, const std::string& bdf);

/// What the kernel says of the device: VFIO_DEVICE_GET_INFO, _GET_REGION_INFO with its sparse areas,
/// _GET_IRQ_INFO, and the configuration space.
[[nodiscard]] Result<DeviceInfo> read_device_info(int device, const PciDevice& pci);

/// The IOVA ranges of VFIO_IOMMU_GET_INFO; empty where the kernel does not tell.
[[nodiscard]] Result<std::vector<Range>> iova_ranges(int container);

/// VFIO_IOMMU_MAP_DMA of `size` bytes at `address`, which stay pinned until unmapped or the container's end.
[[nodiscard]] Status map_dma(int container, void* address, uint64_t size, uint64_t iova, bool read,
                             bool write);
[[nodiscard]] Status unmap_dma(int container, uint64_t iova, uint64_t size);

/// VFIO_DEVICE_SET_IRQS, DATA_EVENTFD | ACTION_TRIGGER from vector `first` on; -1 leaves a vector unwired, or
/// unwires it. The first call for an index decides how many vectors it has (VFIO_IRQ_INFO_NORESIZE).
[[nodiscard]] Status set_irqs(int device, uint32_t index, uint32_t first, std::span<const int> eventfds);
/// Takes all vectors of `index` away.
[[nodiscard]] Status disable_irqs(int device, uint32_t index);

[[nodiscard]] Status reset(int device);

/// A dma-buf of a range of a BAR, in whole pages. Errnum ENOTTY where the kernel cannot (before 6.19).
[[nodiscard]] Result<UniqueFd> export_dmabuf(int device, uint32_t region, uint64_t offset, uint64_t length,
                                             bool writable);

/// The 16-bit PCI command register, through the configuration region at `config_offset` of the device fd.
[[nodiscard]] Result<uint16_t> read_command(int device, uint64_t config_offset);
[[nodiscard]] Status write_command(int device, uint64_t config_offset, uint16_t command);

}  // namespace postern::vfio
