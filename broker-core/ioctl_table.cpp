// SPDX-License-Identifier: Apache-2.0
#include "broker-core/ioctl_table.h"

#include <fmt/format.h>
#include <linux/dma-buf.h>
#include <linux/kvm.h>
#include <linux/udmabuf.h>
#include <linux/vfio.h>

#include <array>
#include <cstddef>
#include <cstring>

#include "broker-core/iommufd_uapi.h"
#include "broker-core/vfio_uapi.h"

namespace postern {
namespace {

// The one place where names, offsets and widths of fields come from: the structs themselves.
#define FIELD(type, member)                                                          \
    IoctlField {                                                                     \
#member, offsetof(type, member),                                             \
            static_cast < uint8_t>(sizeof(static_cast <type*>(nullptr)->member)), {} \
    }
#define NAMED_FIELD(type, member, names)                                                \
    IoctlField {                                                                        \
#member, offsetof(type, member),                                                \
            static_cast < uint8_t>(sizeof(static_cast <type*>(nullptr)->member)), names \
    }
/// Up to and with this member: what the kernel demands of argsz.
#define SIZE_TO(type, member) \
    static_cast<uint16_t>(offsetof(type, member) + sizeof(static_cast<type*>(nullptr)->member))

constexpr uint16_t kAtStart = 0;

constexpr std::array kIrqIndexes{
    FieldValue{"intx", VFIO_PCI_INTX_IRQ_INDEX}, FieldValue{"msi", VFIO_PCI_MSI_IRQ_INDEX},
    FieldValue{"msix", VFIO_PCI_MSIX_IRQ_INDEX}, FieldValue{"err", VFIO_PCI_ERR_IRQ_INDEX},
    FieldValue{"req", VFIO_PCI_REQ_IRQ_INDEX},
};
/// include/uapi/linux/vfio.h of Linux 7.
constexpr std::array kFeatures{
    FieldValue{"VFIO_DEVICE_FEATURE_PCI_VF_TOKEN", 0},
    FieldValue{"VFIO_DEVICE_FEATURE_MIGRATION", 1},
    FieldValue{"VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE", 2},
    FieldValue{"VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY", 3},
    FieldValue{"VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP", 4},
    FieldValue{"VFIO_DEVICE_FEATURE_LOW_POWER_EXIT", 5},
    FieldValue{"VFIO_DEVICE_FEATURE_DMA_LOGGING_START", 6},
    FieldValue{"VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP", 7},
    FieldValue{"VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT", 8},
    FieldValue{"VFIO_DEVICE_FEATURE_MIG_DATA_SIZE", 9},
    FieldValue{"VFIO_DEVICE_FEATURE_BUS_MASTER", 10},
    FieldValue{"VFIO_DEVICE_FEATURE_DMA_BUF", VFIO_DEVICE_FEATURE_DMA_BUF},
};
/// VFIO_DEVICE_FEATURE_GET, SET and PROBE, 16 bits lower.
constexpr std::array kDirections{
    FieldValue{"get", VFIO_DEVICE_FEATURE_GET >> 16},
    FieldValue{"set", VFIO_DEVICE_FEATURE_SET >> 16},
    FieldValue{"probe", VFIO_DEVICE_FEATURE_PROBE >> 16},
    FieldValue{"probe-get", (VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET) >> 16},
    FieldValue{"probe-set", (VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET) >> 16},
};

constexpr std::array kDeviceInfo{FIELD(vfio_device_info, argsz), FIELD(vfio_device_info, flags)};
constexpr std::array kRegionInfo{FIELD(vfio_region_info, argsz), FIELD(vfio_region_info, flags),
                                 FIELD(vfio_region_info, index)};
constexpr std::array kIrqInfo{FIELD(vfio_irq_info, argsz), FIELD(vfio_irq_info, flags),
                              NAMED_FIELD(vfio_irq_info, index, kIrqIndexes)};
constexpr std::array kIrqSet{FIELD(vfio_irq_set, argsz), FIELD(vfio_irq_set, flags),
                             NAMED_FIELD(vfio_irq_set, index, kIrqIndexes), FIELD(vfio_irq_set, start),
                             FIELD(vfio_irq_set, count)};
constexpr std::array kHotReset{FIELD(vfio_pci_hot_reset, argsz), FIELD(vfio_pci_hot_reset, flags),
                               FIELD(vfio_pci_hot_reset, count)};
constexpr std::array kIoeventfd{FIELD(vfio_device_ioeventfd, argsz), FIELD(vfio_device_ioeventfd, flags),
                                FIELD(vfio_device_ioeventfd, offset), FIELD(vfio_device_ioeventfd, data)};
/// `flags` is two things at once, and on a little endian machine each has two bytes of its own.
constexpr uint16_t kFlags = offsetof(vfio_device_feature, flags);
constexpr std::array kFeature{FIELD(vfio_device_feature, argsz), FIELD(vfio_device_feature, flags),
                              IoctlField{"feature", kFlags, 2, kFeatures},
                              IoctlField{"direction", kFlags + 2, 2, kDirections}};
static_assert(VFIO_DEVICE_FEATURE_MASK == 0xffff);

constexpr std::array kDmaMap{FIELD(vfio_iommu_type1_dma_map, argsz), FIELD(vfio_iommu_type1_dma_map, flags),
                             FIELD(vfio_iommu_type1_dma_map, vaddr), FIELD(vfio_iommu_type1_dma_map, iova),
                             FIELD(vfio_iommu_type1_dma_map, size)};
constexpr std::array kDmaUnmap{
    FIELD(vfio_iommu_type1_dma_unmap, argsz), FIELD(vfio_iommu_type1_dma_unmap, flags),
    FIELD(vfio_iommu_type1_dma_unmap, iova), FIELD(vfio_iommu_type1_dma_unmap, size)};

using namespace uapi;
constexpr std::array kDestroy{FIELD(IommuDestroy, size), FIELD(IommuDestroy, id)};
constexpr std::array kIoasMap{FIELD(IommuIoasMap, size),    FIELD(IommuIoasMap, flags),
                              FIELD(IommuIoasMap, ioas_id), FIELD(IommuIoasMap, user_va),
                              FIELD(IommuIoasMap, length),  FIELD(IommuIoasMap, iova)};
constexpr std::array kIoasMapFile{FIELD(IommuIoasMapFile, size),    FIELD(IommuIoasMapFile, flags),
                                  FIELD(IommuIoasMapFile, ioas_id), FIELD(IommuIoasMapFile, start),
                                  FIELD(IommuIoasMapFile, length),  FIELD(IommuIoasMapFile, iova)};
constexpr std::array kIoasUnmap{FIELD(IommuIoasUnmap, size), FIELD(IommuIoasUnmap, ioas_id),
                                FIELD(IommuIoasUnmap, iova), FIELD(IommuIoasUnmap, length)};
constexpr std::array kIoasCopy{FIELD(IommuIoasCopy, size),        FIELD(IommuIoasCopy, flags),
                               FIELD(IommuIoasCopy, dst_ioas_id), FIELD(IommuIoasCopy, src_ioas_id),
                               FIELD(IommuIoasCopy, length),      FIELD(IommuIoasCopy, dst_iova),
                               FIELD(IommuIoasCopy, src_iova)};
constexpr std::array kOption{FIELD(IommuOption, size), FIELD(IommuOption, option_id), FIELD(IommuOption, op),
                             FIELD(IommuOption, object_id), FIELD(IommuOption, val64)};

constexpr std::array kSync{FIELD(dma_buf_sync, flags)};
constexpr std::array kImport{FIELD(dma_buf_import_sync_file, flags)};
constexpr std::array kUdmabuf{FIELD(udmabuf_create, flags), FIELD(udmabuf_create, offset),
                              FIELD(udmabuf_create, size)};

/// linux/vfio.h: every VFIO ioctl is _IO(VFIO_TYPE, VFIO_BASE + n), with no size in the number.
constexpr uint32_t vfio_io(uint32_t n) {
    return static_cast<uint32_t>(_IO(VFIO_TYPE, VFIO_BASE)) + n;
}

using enum IoctlFile;
using enum Argument;
constexpr std::array kTable{
    IoctlEntry{Device, "VFIO_DEVICE_GET_INFO", vfio_io(7),
               "ask how many regions and interrupts the device has", "", Answer,
               SIZE_TO(vfio_device_info, num_irqs), kAtStart, kDeviceInfo},
    IoctlEntry{Device, "VFIO_DEVICE_GET_REGION_INFO", vfio_io(8),
               "ask for size, offset and layout of a region", "", Answer, SIZE_TO(vfio_region_info, offset),
               kAtStart, kRegionInfo},
    IoctlEntry{Device, "VFIO_DEVICE_GET_IRQ_INFO", vfio_io(9), "ask how many vectors an interrupt index has",
               "", Answer, SIZE_TO(vfio_irq_info, count), kAtStart, kIrqInfo},
    IoctlEntry{Device, "VFIO_DEVICE_SET_IRQS", vfio_io(10),
               "wire, mask, unmask and trigger any interrupt of the device",
               "it rewires the interrupts of every slice", Block, SIZE_TO(vfio_irq_set, count), kAtStart,
               kIrqSet},
    IoctlEntry{Device, "VFIO_DEVICE_RESET", vfio_io(11), "reset the whole device", "it stops every slice"},
    IoctlEntry{Device, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", vfio_io(12),
               "list the devices that a hot reset touches", "", Answer,
               SIZE_TO(vfio_pci_hot_reset_info, count), kAtStart},
    IoctlEntry{Device, "VFIO_DEVICE_PCI_HOT_RESET", vfio_io(13), "reset the whole slot or bus",
               "it stops every slice and every device beside it", Block, SIZE_TO(vfio_pci_hot_reset, count),
               kAtStart, kHotReset},
    IoctlEntry{Device, "VFIO_DEVICE_QUERY_GFX_PLANE", vfio_io(14), "ask for the state of a graphics plane",
               "", Answer, SIZE_TO(vfio_device_gfx_plane_info, flags), kAtStart},
    IoctlEntry{Device, "VFIO_DEVICE_GET_GFX_DMABUF", vfio_io(15), "export a graphics plane as a dma-buf",
               "it hands out memory that no window names", Number},
    IoctlEntry{Device, "VFIO_DEVICE_IOEVENTFD", vfio_io(16), "let an eventfd write to any place of any BAR",
               "it writes outside of every window", Block, SIZE_TO(vfio_device_ioeventfd, fd), kAtStart,
               kIoeventfd},
    IoctlEntry{Device, "VFIO_DEVICE_FEATURE", vfio_io(17), "get, set and probe every VFIO feature",
               "it exports any BAR range as a dma-buf", Block, SIZE_TO(vfio_device_feature, flags), kAtStart,
               kFeature},
    IoctlEntry{Device, "VFIO_DEVICE_BIND_IOMMUFD", vfio_io(18), "bind the device to an iommufd",
               "it changes whose memory the device reaches", Answer, 16, kAtStart},
    IoctlEntry{Device, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", vfio_io(19),
               "attach the device to another page table", "it changes whose memory the device reaches",
               Answer, 12, kAtStart},
    IoctlEntry{Device, "VFIO_DEVICE_DETACH_IOMMUFD_PT", vfio_io(20), "detach the device from its page table",
               "it takes DMA away from every slice", Block, 8, kAtStart},

    IoctlEntry{Group, "VFIO_GROUP_GET_STATUS", vfio_io(3), "ask whether the group is viable", "", Answer,
               SIZE_TO(vfio_group_status, flags), kAtStart},
    IoctlEntry{Group, "VFIO_GROUP_SET_CONTAINER", vfio_io(4), "put the group into a container",
               "it changes whose memory the device reaches", Number},
    IoctlEntry{Group, "VFIO_GROUP_UNSET_CONTAINER", vfio_io(5), "take the group out of its container",
               "it takes DMA away from every slice"},
    IoctlEntry{Group, "VFIO_GROUP_GET_DEVICE_FD", vfio_io(6), "open any device of the group",
               "it opens the whole device", Number},

    IoctlEntry{Container, "VFIO_GET_API_VERSION", vfio_io(0), "ask for VFIO's version", ""},
    IoctlEntry{Container, "VFIO_CHECK_EXTENSION", vfio_io(1), "ask what the IOMMU driver can", "", Number},
    IoctlEntry{Container, "VFIO_SET_IOMMU", vfio_io(2), "choose the IOMMU driver", "", Number},
    IoctlEntry{Container, "VFIO_IOMMU_GET_INFO", vfio_io(12), "ask for page sizes and IOVA ranges", "",
               Answer, SIZE_TO(vfio_iommu_type1_info, iova_pgsizes), kAtStart},
    IoctlEntry{Container, "VFIO_IOMMU_MAP_DMA", vfio_io(13), "map its memory for DMA",
               "it maps at any IOVA, other clients' included", Block, SIZE_TO(vfio_iommu_type1_dma_map, size),
               kAtStart, kDmaMap},
    IoctlEntry{Container, "VFIO_IOMMU_UNMAP_DMA", vfio_io(14), "unmap memory from DMA",
               "it unmaps other clients' memory", Answer, SIZE_TO(vfio_iommu_type1_dma_unmap, size), kAtStart,
               kDmaUnmap},

    IoctlEntry{Iommufd, "IOMMU_DESTROY", iommufd_io(0), "destroy an object of the iommufd",
               "it destroys other clients' objects", Block, SIZE_TO(IommuDestroy, id), kAtStart, kDestroy},
    IoctlEntry{Iommufd, "IOMMU_IOAS_ALLOC", iommufd_io(1), "make an I/O address space", "", Answer,
               SIZE_TO(IommuIoasAlloc, out_ioas_id), kAtStart},
    IoctlEntry{Iommufd, "IOMMU_IOAS_COPY", iommufd_io(3), "copy mappings between address spaces",
               "it reaches other clients' mappings", Answer, SIZE_TO(IommuIoasCopy, src_iova), kAtStart,
               kIoasCopy},
    IoctlEntry{Iommufd, "IOMMU_IOAS_IOVA_RANGES", iommufd_io(4), "ask which IOVAs can be mapped", "", Answer,
               SIZE_TO(IommuIoasIovaRanges, out_iova_alignment), kAtStart},
    IoctlEntry{Iommufd, "IOMMU_IOAS_MAP", iommufd_io(5), "map its memory for DMA",
               "it maps at any IOVA of any address space", BlockTwice, SIZE_TO(IommuIoasMap, iova), kAtStart,
               kIoasMap},
    IoctlEntry{Iommufd, "IOMMU_IOAS_UNMAP", iommufd_io(6), "unmap memory from DMA",
               "it unmaps other clients' memory", BlockTwice, SIZE_TO(IommuIoasUnmap, length), kAtStart,
               kIoasUnmap},
    IoctlEntry{Iommufd, "IOMMU_OPTION", iommufd_io(7), "get and set options",
               "it changes limits of all clients", Answer, SIZE_TO(IommuOption, val64), kAtStart, kOption},
    IoctlEntry{Iommufd, "IOMMU_IOAS_MAP_FILE", iommufd_io(15), "map a memfd or dma-buf for DMA",
               "it maps at any IOVA of any address space", BlockTwice, SIZE_TO(IommuIoasMapFile, iova),
               kAtStart, kIoasMapFile},

    IoctlEntry{DmaBuf,
               "DMA_BUF_IOCTL_SYNC",
               DMA_BUF_IOCTL_SYNC,
               "bracket accesses of the CPU",
               "",
               Block,
               sizeof(dma_buf_sync),
               {},
               kSync},
    IoctlEntry{DmaBuf, "DMA_BUF_IOCTL_EXPORT_SYNC_FILE", DMA_BUF_IOCTL_EXPORT_SYNC_FILE, "export its fences",
               "", Answer, sizeof(dma_buf_export_sync_file)},
    IoctlEntry{DmaBuf,
               "DMA_BUF_IOCTL_IMPORT_SYNC_FILE",
               DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
               "import a fence",
               "",
               Block,
               sizeof(dma_buf_import_sync_file),
               {},
               kImport},

    IoctlEntry{Udmabuf,
               "UDMABUF_CREATE",
               UDMABUF_CREATE,
               "make a dma-buf of a memfd",
               "",
               Block,
               sizeof(udmabuf_create),
               {},
               kUdmabuf},
    IoctlEntry{Udmabuf, "UDMABUF_CREATE_LIST", UDMABUF_CREATE_LIST, "make a dma-buf of pieces of memfds", "",
               Number},

    IoctlEntry{Kvm, "KVM_GET_API_VERSION", KVM_GET_API_VERSION, "ask for KVM's version", ""},
    IoctlEntry{Kvm, "KVM_CREATE_VM", KVM_CREATE_VM, "make virtual machines", "", Number},
    IoctlEntry{Kvm, "KVM_CHECK_EXTENSION", KVM_CHECK_EXTENSION, "ask what KVM can", "", Number},
    IoctlEntry{Kvm, "KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE,
               "ask for the size of a vCPU's shared area", ""},
};

uint64_t field_value(const IoctlField& field, std::span<const uint8_t> block) {
    uint64_t value = 0;
    std::memcpy(&value, block.data() + field.offset, field.width);
    return value;
}

}  // namespace

std::span<const IoctlEntry> known_ioctls() {
    return kTable;
}

const IoctlEntry* find_ioctl(std::string_view name) {
    for (const IoctlEntry& entry : kTable) {
        if (entry.name == name) return &entry;
    }
    return nullptr;
}

const IoctlEntry* find_ioctl(IoctlFile file, std::string_view name) {
    for (const IoctlEntry& entry : kTable) {
        if (entry.file == file && entry.name == name) return &entry;
    }
    return nullptr;
}

const IoctlEntry* find_ioctl(IoctlFile file, uint32_t number) {
    for (const IoctlEntry& entry : kTable) {
        if (entry.file == file && entry.number == number) return &entry;
    }
    return nullptr;
}

std::vector<std::string_view> ioctl_names(IoctlFile file) {
    std::vector<std::string_view> names;
    for (const IoctlEntry& entry : kTable) {
        if (entry.file == file) names.push_back(entry.name);
    }
    return names;
}

std::string ioctl_name(IoctlFile file, uint32_t number) {
    const IoctlEntry* entry = find_ioctl(file, number);
    return entry != nullptr ? std::string(entry->name) : fmt::format("{:#x}", number);
}

std::string describe_block(const IoctlEntry& entry, std::span<const uint8_t> block) {
    std::string text;
    for (const IoctlField& field : entry.fields) {
        if (static_cast<size_t>(field.offset) + field.width > block.size()) continue;
        const uint64_t value = field_value(field, block);
        std::string_view known;
        for (const FieldValue& each : field.values) {
            if (each.value == value) known = each.name;
        }
        text += fmt::format("{}{}=", text.empty() ? "" : " ", field.name);
        text += known.empty() ? fmt::format("{:#x}", value) : std::string(known);
    }
    return text;
}

}  // namespace postern
