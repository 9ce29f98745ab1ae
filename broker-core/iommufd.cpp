// SPDX-License-Identifier: Apache-2.0
#include "broker-core/iommufd.h"

#include <linux/vfio.h>
#include <sys/ioctl.h>

#include <vector>

#include "broker-core/iommufd_uapi.h"
#include "broker-core/vfio.h"
#include "broker-core/vfio_uapi.h"

namespace postern::iommufd {
namespace {

using namespace uapi;

/// A struct that begins with its own size.
template <typename Block>
int call(int fd, uint32_t number, Block& block) {
    block.size = sizeof block;
    return ::ioctl(fd, number, &block);
}

uint32_t protection(bool read, bool write) {
    return kIoasMapFixedIova | (read ? kIoasMapReadable : 0U) | (write ? kIoasMapWriteable : 0U);
}

}  // namespace

Result<UniqueFd> open() {
    POSTERN_ASSIGN(
        UniqueFd iommufd,
        vfio::open_node("/dev/iommu",
                        "this kernel has no iommufd, or its module is not loaded (modprobe iommufd)"));
    IommuOption count{};
    count.option_id = kOptionRlimitMode;
    count.op = kOptionSet;
    count.val64 = kRlimitOfProcess;
    if (call(iommufd.get(), kIommuOption, count) == 0) return iommufd;
    // Without CAP_SYS_RESOURCE it stays as VFIO has it: of a user.
    const int error = errno;
    if (error == EPERM) return iommufd;
    return fail_errno(error, "IOMMU_OPTION_RLIMIT_MODE");
}

Result<uint32_t> alloc_ioas(int iommufd) {
    IommuIoasAlloc alloc{};
    if (call(iommufd, kIommuIoasAlloc, alloc) == 0) return alloc.out_ioas_id;
    const int error = errno;
    return fail_errno(error, "IOMMU_IOAS_ALLOC");
}

Status set_vfio_ioas(int iommufd, uint32_t ioas) {
    IommuVfioIoas set{};
    set.ioas_id = ioas;
    set.op = kVfioIoasSet;
    if (call(iommufd, kIommuVfioIoas, set) == 0) return {};
    const int error = errno;
    return fail_errno(error, "IOMMU_VFIO_IOAS{}",
                      error == EOPNOTSUPP || error == ENOTTY
                          ? " (this kernel's iommufd takes no VFIO groups; use the backend \"cdev\")"
                          : "");
}

Status bind_device(int device, int iommufd) {
    VfioBindIommufd bind{};
    bind.argsz = sizeof bind;
    bind.iommufd = iommufd;
    if (::ioctl(device, kVfioBindIommufd, &bind) == 0) return {};
    const int error = errno;
    return fail_errno(error, "VFIO_DEVICE_BIND_IOMMUFD");
}

Status attach_device(int device, uint32_t ioas) {
    VfioAttachIommufd attach{};
    attach.argsz = sizeof attach;
    attach.pt_id = ioas;
    if (::ioctl(device, kVfioAttachIommufd, &attach) == 0) return {};
    const int error = errno;
    return fail_errno(error, "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
}

Result<IovaSpace> iova_space(int iommufd, uint32_t ioas) {
    std::vector<IommuIovaRange> ranges(16);
    for (int attempt = 0; attempt < 3; ++attempt) {
        IommuIoasIovaRanges ask{};
        ask.ioas_id = ioas;
        ask.num_iovas = static_cast<uint32_t>(ranges.size());
        ask.allowed_iovas = reinterpret_cast<uint64_t>(ranges.data());
        const bool told = call(iommufd, kIommuIoasIovaRanges, ask) == 0;
        const int error = errno;
        if (!told && error != EMSGSIZE) return fail_errno(error, "IOMMU_IOAS_IOVA_RANGES");
        ranges.resize(ask.num_iovas);
        if (!told) continue;
        IovaSpace space;
        for (const IommuIovaRange& each : ranges)
            space.ranges.push_back({each.start, each.last == UINT64_MAX ? UINT64_MAX : each.last + 1});
        if (ask.out_iova_alignment > space.alignment) space.alignment = ask.out_iova_alignment;
        return space;
    }
    return fail("IOMMU_IOAS_IOVA_RANGES: the kernel keeps asking for more room");
}

Status map(int iommufd, uint32_t ioas, const DmaSource& memory, uint64_t iova, bool read, bool write) {
    IommuIoasMapFile map_file{};
    map_file.flags = protection(read, write);
    map_file.ioas_id = ioas;
    map_file.fd = memory.memfd;
    map_file.length = memory.size;
    map_file.iova = iova;
    if (call(iommufd, kIommuIoasMapFile, map_file) == 0) return {};
    if (errno == ENOTTY) {
        IommuIoasMap map{};
        map.flags = map_file.flags;
        map.ioas_id = ioas;
        map.user_va = reinterpret_cast<uint64_t>(memory.address);
        map.length = memory.size;
        map.iova = iova;
        if (call(iommufd, kIommuIoasMap, map) == 0) return {};
    }
    const int error = errno;
    return fail_errno(error, "IOMMU_IOAS_MAP of {} at iova {:#x}{}", format_size(memory.size), iova,
                      error == ENOMEM ? " (raise the limit on locked memory: ulimit -l)" : "");
}

Status map_dmabuf(int iommufd, uint32_t ioas, int dmabuf, uint64_t size, uint64_t iova, bool read,
                  bool write) {
    IommuIoasMapFile map{};
    map.flags = protection(read, write);
    map.ioas_id = ioas;
    map.fd = dmabuf;
    map.length = size;
    map.iova = iova;
    if (call(iommufd, kIommuIoasMapFile, map) == 0) return {};
    const int error = errno;
    const bool unable = error == ENOTTY || error == EOPNOTSUPP || error == EINVAL || error == EBADF;
    return fail_errno(error, "IOMMU_IOAS_MAP_FILE of a dma-buf of {} at iova {:#x}{}", format_size(size),
                      iova,
                      unable ? " (this kernel's iommufd may map no dma-bufs of BARs; Linux 7.3 does)" : "");
}

Status unmap(int iommufd, uint32_t ioas, uint64_t iova, uint64_t size) {
    IommuIoasUnmap unmap{};
    unmap.ioas_id = ioas;
    unmap.iova = iova;
    unmap.length = size;
    if (call(iommufd, kIommuIoasUnmap, unmap) == 0 || errno == ENOENT) return {};
    const int error = errno;
    return fail_errno(error, "IOMMU_IOAS_UNMAP at iova {:#x}", iova);
}

}  // namespace postern::iommufd
