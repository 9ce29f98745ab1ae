// SPDX-License-Identifier: Apache-2.0
#include "broker-core/ioctl_table.h"

#include <array>

namespace postern {
namespace {

/// linux/vfio.h: every VFIO ioctl is _IO(VFIO_TYPE, VFIO_BASE + n), with no size in the number. Written out
/// because Debian 12's header lacks the newer ones.
constexpr uint32_t vfio_io(uint32_t n) {
    return (static_cast<uint32_t>(';') << 8) | (100 + n);
}

constexpr std::array kTable{
    IoctlEntry{"VFIO_DEVICE_GET_INFO", vfio_io(7), "ask how many regions and interrupts the device has", ""},
    IoctlEntry{"VFIO_DEVICE_GET_REGION_INFO", vfio_io(8), "ask for size, offset and layout of a region", ""},
    IoctlEntry{"VFIO_DEVICE_GET_IRQ_INFO", vfio_io(9), "ask how many vectors an interrupt index has", ""},
    IoctlEntry{"VFIO_DEVICE_SET_IRQS", vfio_io(10),
               "wire, mask, unmask and trigger any interrupt of the device",
               "it rewires the interrupts of every slice"},
    IoctlEntry{"VFIO_DEVICE_RESET", vfio_io(11), "reset the whole device", "it stops every slice"},
    IoctlEntry{"VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", vfio_io(12), "list the devices that a hot reset touches",
               ""},
    IoctlEntry{"VFIO_DEVICE_PCI_HOT_RESET", vfio_io(13), "reset the whole slot or bus",
               "it stops every slice and every device beside it"},
    IoctlEntry{"VFIO_DEVICE_QUERY_GFX_PLANE", vfio_io(14), "ask for the state of a graphics plane", ""},
    IoctlEntry{"VFIO_DEVICE_GET_GFX_DMABUF", vfio_io(15), "export a graphics plane as a dma-buf",
               "it hands out memory that no window names"},
    IoctlEntry{"VFIO_DEVICE_IOEVENTFD", vfio_io(16), "let an eventfd write to any place of any BAR",
               "it writes outside of every window"},
    IoctlEntry{"VFIO_DEVICE_FEATURE", vfio_io(17), "get, set and probe every VFIO feature",
               "it exports any BAR range as a dma-buf"},
    IoctlEntry{"VFIO_DEVICE_BIND_IOMMUFD", vfio_io(18), "bind the device to an iommufd",
               "it changes whose memory the device reaches"},
    IoctlEntry{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", vfio_io(19), "attach the device to another page table",
               "it changes whose memory the device reaches"},
    IoctlEntry{"VFIO_DEVICE_DETACH_IOMMUFD_PT", vfio_io(20), "detach the device from its page table",
               "it takes DMA away from every slice"},
};

}  // namespace

std::span<const IoctlEntry> vfio_device_ioctls() {
    return kTable;
}

const IoctlEntry* find_ioctl(std::string_view name) {
    for (const IoctlEntry& entry : kTable) {
        if (entry.name == name) return &entry;
    }
    return nullptr;
}

const IoctlEntry* find_ioctl(uint32_t number) {
    for (const IoctlEntry& entry : kTable) {
        if (entry.number == number) return &entry;
    }
    return nullptr;
}

}  // namespace postern
