// SPDX-License-Identifier: Apache-2.0
#include "broker-core/vfio.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <filesystem>

#include "broker-core/file.h"
#include "broker-core/vfio_uapi.h"

namespace postern::vfio {
namespace {

/// Walks a VFIO capability chain that starts at `offset` of `buffer`; calls visit(header, bytes left).
template <typename Visit>
void walk_capabilities(std::span<const std::byte> buffer, uint32_t offset, const Visit& visit) {
    // Offsets grow from capability to capability; demanding it ends a malformed chain.
    for (uint32_t last = 0; offset > last && offset + sizeof(vfio_info_cap_header) <= buffer.size();) {
        vfio_info_cap_header header{};
        std::memcpy(&header, buffer.data() + offset, sizeof header);
        visit(header, buffer.subspan(offset));
        last = offset;
        offset = header.next;
    }
}

/// Calls an ioctl whose struct begins with argsz, again with more room if the kernel asks for it.
template <typename Info>
Result<std::vector<std::byte>> get_with_capabilities(int fd, unsigned long request, Info info,
                                                     const char* name) {
    std::vector<std::byte> buffer(sizeof(Info));
    for (int attempt = 0; attempt < 3; ++attempt) {
        info.argsz = static_cast<uint32_t>(buffer.size());
        std::memcpy(buffer.data(), &info, sizeof info);
        if (::ioctl(fd, request, buffer.data()) != 0) {
            const int error = errno;
            return fail_errno(error, "{}", name);
        }
        uint32_t wanted = 0;
        std::memcpy(&wanted, buffer.data() + offsetof(Info, argsz), sizeof wanted);
        if (wanted <= buffer.size()) return buffer;
        if (wanted > (1U << 20)) return fail("{}: the kernel wants {} bytes", name, wanted);
        buffer.resize(wanted);
    }
    return fail("{}: the kernel keeps asking for more room", name);
}

Result<RegionInfo> read_region(int device, uint32_t index) {
    vfio_region_info ask{};
    ask.index = index;
    POSTERN_ASSIGN(
        const std::vector<std::byte> buffer,
        get_with_capabilities(device, VFIO_DEVICE_GET_REGION_INFO, ask, "VFIO_DEVICE_GET_REGION_INFO"));
    vfio_region_info info{};
    std::memcpy(&info, buffer.data(), sizeof info);
    RegionInfo region;
    region.size = info.size;
    region.file_offset = info.offset;
    region.readable = (info.flags & VFIO_REGION_INFO_FLAG_READ) != 0;
    region.writable = (info.flags & VFIO_REGION_INFO_FLAG_WRITE) != 0;
    if ((info.flags & VFIO_REGION_INFO_FLAG_MMAP) == 0) return region;
    region.mappable = {{0, info.size}};
    if ((info.flags & VFIO_REGION_INFO_FLAG_CAPS) == 0) return region;
    walk_capabilities(buffer, info.cap_offset,
                      [&](const vfio_info_cap_header& header, std::span<const std::byte> bytes) {
                          if (header.id != VFIO_REGION_INFO_CAP_SPARSE_MMAP) return;
                          region.mappable.clear();
                          vfio_region_info_cap_sparse_mmap sparse{};
                          if (bytes.size() < sizeof sparse) return;
                          std::memcpy(&sparse, bytes.data(), sizeof sparse);
                          for (uint32_t i = 0; i < sparse.nr_areas; ++i) {
                              const size_t at = sizeof sparse + i * sizeof(vfio_region_sparse_mmap_area);
                              if (at + sizeof(vfio_region_sparse_mmap_area) > bytes.size()) return;
                              vfio_region_sparse_mmap_area area{};
                              std::memcpy(&area, bytes.data() + at, sizeof area);
                              region.mappable.push_back({area.offset, area.offset + area.size});
                          }
                      });
    return region;
}

Status set_container(int container, int group) {
    vfio_group_status status{};
    status.argsz = sizeof status;
    if (::ioctl(group, VFIO_GROUP_GET_STATUS, &status) != 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_GROUP_GET_STATUS");
    }
    if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0) {
        return fail(
            "the IOMMU group is not viable: another device of it is bound to a driver of the host; "
            "`postern devices` shows which");
    }
    if (::ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0) return {};
    const int error = errno;
    return fail_errno(error, "VFIO_GROUP_SET_CONTAINER");
}

}  // namespace

std::string holder_of(const std::string& path) {
    struct stat wanted {};
    if (::stat(path.c_str(), &wanted) != 0) return {};
    std::error_code code;
    for (const auto& process : std::filesystem::directory_iterator("/proc", code)) {
        const std::string pid = process.path().filename().string();
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        std::error_code gone;
        for (const auto& fd : std::filesystem::directory_iterator(process.path() / "fd", gone)) {
            struct stat found {};
            if (::stat(fd.path().c_str(), &found) != 0 || found.st_rdev != wanted.st_rdev ||
                !S_ISCHR(found.st_mode))
                continue;
            auto name = read_file((process.path() / "comm").string(), 4096);
            if (name && name->ends_with('\n')) name->pop_back();
            return fmt::format("pid {} ({})", pid, name ? *name : "?");
        }
    }
    return {};
}

Result<UniqueFd> open_node(const std::string& path, std::string_view hint_absent) {
    UniqueFd node(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (node) return node;
    const int error = errno;
    switch (error) {
        case EBUSY: {
            const std::string holder = holder_of(path);
            return Failure(Error{fmt::format("{} is busy: {} has it open; end that first", path,
                                             holder.empty() ? "another process" : holder),
                                 error});
        }
        case EACCES:
        case EPERM:
            return fail_errno(
                error, "no right to open {}; run as root, or let an administrator give you the node", path);
        case ENOENT:
        case ENODEV:
        case ENXIO:
            return fail_errno(error, "cannot open {}; {}", path, hint_absent);
        default:
            return fail_errno(error, "cannot open {}", path);
    }
}

Result<UniqueFd> open_container() {
    return open_node("/dev/vfio/vfio", "load the module: modprobe vfio-pci");
}

Result<UniqueFd> open_group(int group) {
    return open_node(fmt::format("/dev/vfio/{}", group),
                     "bind the group's devices to vfio-pci (`postern bind`)");
}

Status attach_group(int container, int group) {
    if (const int version = ::ioctl(container, VFIO_GET_API_VERSION); version != VFIO_API_VERSION) {
        return fail("VFIO_GET_API_VERSION says {}, and this program speaks {}", version, VFIO_API_VERSION);
    }
    if (::ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1) {
        return fail("this kernel has no type 1 IOMMU for VFIO; load the module: modprobe vfio_iommu_type1");
    }
    POSTERN_TRY(set_container(container, group));
    if (::ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) != 0) {
        const int error = errno;
        return fail_errno(
            error, "VFIO_SET_IOMMU to type 1{}",
            error == EPERM
                ? " (without interrupt remapping VFIO refuses: boot with intremap=on, or accept the "
                  "risk with vfio_iommu_type1.allow_unsafe_interrupts=1)"
                : "");
    }
    return {};
}

Status attach_group_to_iommufd(int iommufd, int group) {
    return set_container(iommufd, group);
}

Result<UniqueFd> get_device(int group, const std::string& bdf) {
    // The kernel returns the fd with O_CLOEXEC (drivers/vfio/group.c, vfio_device_open_file).
    const int device = ::ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf.c_str());
    if (device < 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_GROUP_GET_DEVICE_FD {}", bdf);
    }
    return UniqueFd(device);
}

Result<DeviceInfo> read_device_info(int device, const PciDevice& pci) {
    vfio_device_info basics{};
    basics.argsz = sizeof basics;
    if (::ioctl(device, VFIO_DEVICE_GET_INFO, &basics) != 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_DEVICE_GET_INFO");
    }
    if ((basics.flags & VFIO_DEVICE_FLAGS_PCI) == 0) return fail("the VFIO device is not a PCI device");
    DeviceInfo info;
    info.bdf = pci.bdf;
    info.id = pci.id;
    info.can_reset = (basics.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
    for (uint32_t index = 0; index < kRegions && index < basics.num_regions; ++index) {
        // VGA (8) is EINVAL on devices without one; an absent region is one of size 0.
        if (auto region = read_region(device, index)) info.regions[index] = std::move(*region);
    }
    for (uint32_t index = 0; index < kIrqs && index < basics.num_irqs; ++index) {
        vfio_irq_info irq{};
        irq.argsz = sizeof irq;
        irq.index = index;
        if (::ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &irq) != 0) continue;  // ERR and REQ may be absent
        info.irqs[index] = {irq.count, (irq.flags & VFIO_IRQ_INFO_EVENTFD) != 0};
    }
    const RegionInfo& config_region = info.regions[VFIO_PCI_CONFIG_REGION_INDEX];
    std::string config(256, '\0');
    const ssize_t got =
        ::pread(device, config.data(), config.size(), static_cast<off_t>(config_region.file_offset));
    if (got != static_cast<ssize_t>(config.size())) {
        const int error = errno;
        return fail_errno(error, "read of the configuration space");
    }
    info.msix = parse_config_space(config).msix;
    return info;
}

Result<std::vector<Range>> iova_ranges(int container) {
    vfio_iommu_type1_info ask{};
    POSTERN_ASSIGN(const std::vector<std::byte> buffer,
                   get_with_capabilities(container, VFIO_IOMMU_GET_INFO, ask, "VFIO_IOMMU_GET_INFO"));
    vfio_iommu_type1_info info{};
    std::memcpy(&info, buffer.data(), sizeof info);
    std::vector<Range> ranges;
    if ((info.flags & VFIO_IOMMU_INFO_CAPS) == 0) return ranges;
    walk_capabilities(
        buffer, info.cap_offset, [&](const vfio_info_cap_header& header, std::span<const std::byte> bytes) {
            vfio_iommu_type1_info_cap_iova_range list{};
            if (header.id != VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE || bytes.size() < sizeof list) return;
            std::memcpy(&list, bytes.data(), sizeof list);
            for (uint32_t i = 0; i < list.nr_iovas; ++i) {
                vfio_iova_range range{};
                const size_t at = sizeof list + i * sizeof range;
                if (at + sizeof range > bytes.size()) return;
                std::memcpy(&range, bytes.data() + at, sizeof range);
                // The kernel's end is inclusive; the last range may end with the address space.
                ranges.push_back({range.start, range.end == UINT64_MAX ? UINT64_MAX : range.end + 1});
            }
        });
    return ranges;
}

Status map_dma(int container, void* address, uint64_t size, uint64_t iova, bool read, bool write) {
    vfio_iommu_type1_dma_map map{};
    map.argsz = sizeof map;
    map.flags = (read ? VFIO_DMA_MAP_FLAG_READ : 0U) | (write ? VFIO_DMA_MAP_FLAG_WRITE : 0U);
    map.vaddr = reinterpret_cast<uintptr_t>(address);
    map.iova = iova;
    map.size = size;
    if (::ioctl(container, VFIO_IOMMU_MAP_DMA, &map) != 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_IOMMU_MAP_DMA of {} at iova {:#x}{}", format_size(size), iova,
                          error == ENOMEM ? " (raise the limit on locked memory: ulimit -l)" : "");
    }
    return {};
}

Status unmap_dma(int container, uint64_t iova, uint64_t size) {
    vfio_iommu_type1_dma_unmap unmap{};
    unmap.argsz = sizeof unmap;
    unmap.iova = iova;
    unmap.size = size;
    if (::ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) != 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_IOMMU_UNMAP_DMA at iova {:#x}", iova);
    }
    return {};
}

Status set_irqs(int device, uint32_t index, uint32_t first, std::span<const int> eventfds) {
    std::vector<std::byte> buffer(sizeof(vfio_irq_set) + eventfds.size_bytes());
    vfio_irq_set set{};
    set.argsz = static_cast<uint32_t>(buffer.size());
    set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    set.index = index;
    set.start = first;
    set.count = static_cast<uint32_t>(eventfds.size());
    std::memcpy(buffer.data(), &set, sizeof set);
    std::memcpy(buffer.data() + sizeof set, eventfds.data(), eventfds.size_bytes());
    if (::ioctl(device, VFIO_DEVICE_SET_IRQS, buffer.data()) != 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_DEVICE_SET_IRQS of {} vectors of irq index {}", eventfds.size(),
                          index);
    }
    return {};
}

Status disable_irqs(int device, uint32_t index) {
    vfio_irq_set set{};
    set.argsz = sizeof set;
    set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    set.index = index;
    // EINVAL: they are off already; a teardown program may have seen to it.
    if (::ioctl(device, VFIO_DEVICE_SET_IRQS, &set) != 0 && errno != EINVAL) {
        const int error = errno;
        return fail_errno(error, "VFIO_DEVICE_SET_IRQS to take irq index {} away", index);
    }
    return {};
}

Status reset(int device) {
    if (::ioctl(device, VFIO_DEVICE_RESET) != 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_DEVICE_RESET");
    }
    return {};
}

Result<UniqueFd> export_dmabuf(int device, uint32_t region, uint64_t offset, uint64_t length, bool writable) {
    vfio_device_feature feature{};
    uapi::FeatureDmaBuf payload{};
    alignas(uint64_t) std::array<std::byte, sizeof feature + sizeof payload> ask{};
    feature.argsz = sizeof ask;
    feature.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF;
    payload.region_index = region;
    payload.open_flags = static_cast<uint32_t>((writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    payload.nr_ranges = 1;
    payload.range = {offset, length};
    std::memcpy(ask.data(), &feature, sizeof feature);
    std::memcpy(ask.data() + sizeof feature, &payload, sizeof payload);
    const int exported = ::ioctl(device, VFIO_DEVICE_FEATURE, ask.data());
    if (exported < 0) {
        const int error = errno;
        return fail_errno(error, "VFIO_DEVICE_FEATURE_DMA_BUF of region {} at {:#x}", region, offset);
    }
    return UniqueFd(exported);
}

Result<uint16_t> read_command(int device, uint64_t config_offset) {
    uint16_t command = 0;
    if (::pread(device, &command, sizeof command, static_cast<off_t>(config_offset + PCI_COMMAND)) !=
        sizeof command) {
        const int error = errno;
        return fail_errno(error, "read of the PCI command register");
    }
    return command;
}

Status write_command(int device, uint64_t config_offset, uint16_t command) {
    if (::pwrite(device, &command, sizeof command, static_cast<off_t>(config_offset + PCI_COMMAND)) !=
        sizeof command) {
        const int error = errno;
        return fail_errno(error, "write of the PCI command register");
    }
    return {};
}

}  // namespace postern::vfio
