// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/device_info.h"
#include "broker-core/duplicate_fd.h"
#include "broker-core/pci.h"
#include "broker-core/quantity.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "broker-core/vfio.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

libpostern_mapping::libpostern_mapping(libpostern_mapping&& other) noexcept
    : memfd(std::move(other.memfd)),
      address(std::exchange(other.address, nullptr)),
      size(other.size),
      iova(other.iova) {}

libpostern_mapping& libpostern_mapping::operator=(libpostern_mapping&& other) noexcept {
    std::swap(memfd, other.memfd);
    std::swap(address, other.address);
    std::swap(size, other.size);
    std::swap(iova, other.iova);
    return *this;
}

libpostern_mapping::~libpostern_mapping() {
    if (address != nullptr) ::munmap(address, size);
}

namespace postern::library {
namespace {

/// Fills in what is read from the fds.
Status read_info(struct libpostern_device& device, const PciDevice& pci) {
    POSTERN_ASSIGN(device.info, vfio::read_device_info(device.access->device(), pci));
    POSTERN_ASSIGN(IovaSpace space, device.access->iova_space());
    device.info.iova_ranges = std::move(space.ranges);
    device.info.iova_alignment = space.alignment;
    return {};
}

Status open_device(struct libpostern_device& device, const PciDevice& pci) {
    POSTERN_TRY(check_ownable(pci));
    POSTERN_ASSIGN(const Backend wanted, default_backend());
    POSTERN_ASSIGN(const Backend backend, choose_backend(wanted, backend_nodes(pci), false));
    POSTERN_ASSIGN(device.access, DeviceAccess::open(pci, backend));
    return read_info(device, pci);
}

/// The header of the configuration space, with the addresses of the BARs: no two devices have the same.
Result<std::array<unsigned char, PCI_STD_HEADER_SIZEOF>> read_header(int device, uint64_t config) {
    std::array<unsigned char, PCI_STD_HEADER_SIZEOF> header{};
    const ssize_t got = ::pread(device, header.data(), header.size(), static_cast<off_t>(config));
    const int error = errno;
    if (got == static_cast<ssize_t>(header.size())) return header;
    return fail_errno(got < 0 ? error : EIO, "cannot read the configuration space");
}

/// That the group gives another file of the very device whose fd was handed in.
Status check_same_device(const struct libpostern_device& device) {
    POSTERN_ASSIGN(const UniqueFd second, device.access->client_file());
    const uint64_t config = device.info.regions[VFIO_PCI_CONFIG_REGION_INDEX].file_offset;
    POSTERN_ASSIGN(const auto mine, read_header(second.get(), config));
    POSTERN_ASSIGN(const auto given, read_header(device.access->device(), config));
    if (mine == given) return {};
    return refuse(EINVAL, "the device fd is another device's than what the group calls {}", device.bdf);
}

Status adopt_device(struct libpostern_device& device, const PciDevice& pci, int device_fd, int group_fd,
                    int container_fd) {
    POSTERN_ASSIGN(UniqueFd file, duplicate_fd(device_fd, "device_fd"));
    POSTERN_ASSIGN(UniqueFd group, duplicate_fd(group_fd, "group_fd"));
    UniqueFd container;
    if (container_fd >= 0) {
        POSTERN_ASSIGN(container, duplicate_fd(container_fd, "container_fd"));
    }
    device.maps = static_cast<bool>(container);
    device.access =
        DeviceAccess::of_group(device.bdf, std::move(container), std::move(group), std::move(file));
    POSTERN_TRY(read_info(device, pci));
    return check_same_device(device);
}

/// Makes a handle that `fill` opens; it is the context's.
template <typename Fill>
int make_device(struct libpostern_context* context, const char* bdf, struct libpostern_device** made,
                const Fill& fill) {
    return call_in(context, "context", [&]() -> Status {
        POSTERN_TRY(need(bdf, "bdf"));
        POSTERN_TRY(need(made, "device"));
        auto device = std::make_unique<struct libpostern_device>();
        device->context = context;
        POSTERN_ASSIGN(device->bdf, parse_bdf(bdf));
        const auto opened = [&]() -> Status {
            POSTERN_ASSIGN(const PciDevice pci, read_pci_device(device->bdf));
            return fill(*device, pci);
        };
        if (auto status = opened(); !status) return propagate(std::move(status), "device " + device->bdf);
        *made = device.get();
        context->devices.push_back(std::move(device));
        return {};
    });
}

uint64_t config_offset(const struct libpostern_device& device) {
    return device.info.regions[VFIO_PCI_CONFIG_REGION_INDEX].file_offset;
}

Status check_memory(const struct libpostern_device& device, uint64_t size, uint64_t iova, unsigned access) {
    if (size == 0 || size % kPageSize != 0 || iova % kPageSize != 0 || iova + size < iova) {
        return refuse(EINVAL, "size {:#x} and iova {:#x} must be whole pages ({})", size, iova, kPageSize);
    }
    if (access == 0 || (access & ~(LIBPOSTERN_READ | LIBPOSTERN_WRITE)) != 0)
        return refuse(EINVAL, "access {:#x} is not LIBPOSTERN_READ, _WRITE or both", access);
    if (!device.maps)
        return refuse(EINVAL, "device {} was adopted without its container, through which memory is mapped",
                      device.bdf);
    const Range range{iova, iova + size};
    const auto& ranges = device.info.iova_ranges;
    if (!ranges.empty() &&
        std::none_of(ranges.begin(), ranges.end(), [&](Range each) { return each.contains(range); }))
        return refuse(EINVAL, "iova {:#x} to {:#x} is not in what the IOMMU maps for {}", range.begin,
                      range.end, device.bdf);
    return {};
}

Result<libpostern_mapping> make_memory(uint64_t size, uint64_t iova) {
    libpostern_mapping memory;
    memory.memfd = UniqueFd(::memfd_create("libpostern-dma", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    const bool sized = memory.memfd && ::ftruncate(memory.memfd.get(), static_cast<off_t>(size)) == 0;
    void* address =
        sized ? ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.memfd.get(), 0) : MAP_FAILED;
    const int error = errno;
    if (address == MAP_FAILED)
        return fail_errno(error, "libpostern: cannot make {} of memory", format_size(size));
    memory.address = address;
    memory.size = size;
    memory.iova = iova;
    // A launched client begins as a copy of this process, and the init of its sandbox stays one.
    (void)::madvise(address, size, MADV_DONTFORK);
    if (::fcntl(memory.memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        const int seal_error = errno;
        return fail_errno(seal_error, "libpostern: cannot seal DMA memory");
    }
    return memory;
}

Status check_unused(const struct libpostern_device& device) {
    for (const auto& grant : device.context->grants) {
        if (grant->device == &device)
            return refuse(EBUSY, "device {}: grant {} has a part of it; end that first", device.bdf,
                          grant->grant.id);
    }
    return {};
}

}  // namespace

Status close_device(struct libpostern_device& device) {
    if (!device.access) return {};
    Status first;
    for (const uint32_t index : device.wired)
        keep_first(first, vfio::disable_irqs(device.access->device(), index));
    if (device.command_before)
        keep_first(first, vfio::write_command(device.access->device(), config_offset(device),
                                              *device.command_before));
    for (const libpostern_mapping& memory : device.memory)
        keep_first(first, device.access->unmap(memory.iova, memory.size));
    device.memory.clear();
    device.access.reset();
    return first;
}

}  // namespace postern::library

using postern::Result;
using postern::Status;
using postern::library::call_on;
using postern::library::need;
using postern::library::refuse;

extern "C" {

int libpostern_device_open(struct libpostern_context* context, const char* bdf,
                           struct libpostern_device** device) {
    return postern::library::make_device(context, bdf, device, postern::library::open_device);
}

int libpostern_device_adopt(struct libpostern_context* context, const char* bdf, int device_fd, int group_fd,
                            int container_fd, struct libpostern_device** device) {
    return postern::library::make_device(
        context, bdf, device, [&](struct libpostern_device& made, const postern::PciDevice& pci) {
            return postern::library::adopt_device(made, pci, device_fd, group_fd, container_fd);
        });
}

int libpostern_device_fd(const struct libpostern_device* device) {
    return device != nullptr ? device->access->device() : -1;
}

int libpostern_device_region(struct libpostern_device* device, unsigned index,
                             struct libpostern_region* region) {
    return call_on(device, "device", [&]() -> Status {
        POSTERN_TRY(need(region, "region"));
        if (index >= device->info.regions.size()) return refuse(EINVAL, "there is no region {}", index);
        const postern::RegionInfo& info = device->info.regions[index];
        *region = {info.size, info.file_offset,
                   (info.readable ? LIBPOSTERN_READ : 0U) | (info.writable ? LIBPOSTERN_WRITE : 0U) |
                       (info.mappable.empty() ? 0U : LIBPOSTERN_MMAP)};
        return {};
    });
}

int libpostern_device_enable(struct libpostern_device* device) {
    return call_on(device, "device", [&]() -> Status {
        const uint64_t config = postern::library::config_offset(*device);
        POSTERN_ASSIGN(const uint16_t command, postern::vfio::read_command(device->access->device(), config));
        if (!device->command_before) device->command_before = command;
        return postern::vfio::write_command(
            device->access->device(), config,
            static_cast<uint16_t>(command | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER));
    });
}

int libpostern_device_reset(struct libpostern_device* device) {
    return call_on(device, "device", [&] { return postern::vfio::reset(device->access->device()); });
}

int libpostern_device_dma_alloc(struct libpostern_device* device, uint64_t size, uint64_t iova,
                                unsigned access, struct libpostern_memory* memory) {
    return call_on(device, "device", [&]() -> Status {
        POSTERN_TRY(need(memory, "memory"));
        POSTERN_TRY(postern::library::check_memory(*device, size, iova, access));
        POSTERN_ASSIGN(libpostern_mapping made, postern::library::make_memory(size, iova));
        device->memory.reserve(device->memory.size() + 1);
        POSTERN_TRY(device->access->map({made.memfd.get(), made.address, size}, iova,
                                        (access & LIBPOSTERN_READ) != 0, (access & LIBPOSTERN_WRITE) != 0));
        *memory = {made.memfd.get(), made.address, size, iova};
        device->memory.push_back(std::move(made));
        return {};
    });
}

int libpostern_device_dma_free(struct libpostern_device* device, uint64_t iova) {
    return call_on(device, "device", [&]() -> Status {
        const auto found = std::find_if(device->memory.begin(), device->memory.end(),
                                        [iova](const libpostern_mapping& each) { return each.iova == iova; });
        if (found == device->memory.end())
            return refuse(ENOENT, "no memory of the library's begins at iova {:#x}", iova);
        POSTERN_TRY(device->access->unmap(iova, found->size));
        device->memory.erase(found);
        return {};
    });
}

int libpostern_device_wire_irqs(struct libpostern_device* device, unsigned index, const int* eventfds,
                                size_t count) {
    return call_on(device, "device", [&]() -> Status {
        POSTERN_TRY(need(eventfds, "eventfds"));
        if (index >= device->info.irqs.size() || count == 0 || count > device->info.irqs[index].count) {
            return refuse(EINVAL, "device {}: {} vectors of irq {} are wanted and it has {}", device->bdf,
                          count, index,
                          index < device->info.irqs.size() ? device->info.irqs[index].count : 0);
        }
        POSTERN_TRY(postern::vfio::set_irqs(device->access->device(), index, 0,
                                            std::span<const int>(eventfds, count)));
        if (std::find(device->wired.begin(), device->wired.end(), index) == device->wired.end())
            device->wired.push_back(index);
        return {};
    });
}

int libpostern_device_export(struct libpostern_device* device, unsigned region, uint64_t offset,
                             uint64_t length, int writable, int* fd) {
    return call_on(device, "device", [&]() -> Status {
        POSTERN_TRY(need(fd, "fd"));
        if (region >= device->info.regions.size() || length == 0 || offset % postern::kPageSize != 0 ||
            length % postern::kPageSize != 0) {
            return refuse(EINVAL,
                          "region {}, offset {:#x}, length {:#x}: must be whole pages ({}) of a region",
                          region, offset, length, postern::kPageSize);
        }
        POSTERN_ASSIGN(postern::UniqueFd made, postern::vfio::export_dmabuf(device->access->device(), region,
                                                                            offset, length, writable != 0));
        *fd = made.release();
        return {};
    });
}

int libpostern_device_close(struct libpostern_device* device) {
    if (device == nullptr) return 0;
    struct libpostern_context* context = device->context;
    return call_on(device, "device", [&]() -> Status {
        POSTERN_TRY(postern::library::check_unused(*device));
        Status closed = postern::library::close_device(*device);
        std::erase_if(context->devices, [device](const auto& each) { return each.get() == device; });
        return closed;
    });
}

}  // extern "C"
