// SPDX-License-Identifier: Apache-2.0
// The other doors into an x86-64 kernel: int $0x80 with the numbers of i386 (asm/unistd_32.h), and x32, whose
// numbers are those of x86-64 with bit 30.
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "tests/hostile/compat.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

enum I386 : long {
    kRead = 3,
    kGetpid = 20,
    kIoctl = 54,
    kOldMmap = 90,
    kReadv = 145,
    kPread64 = 180,
    kMmap2 = 192,
    kPreadv = 333,
};
constexpr long kX32 = 0x40000000;
constexpr off_t kConfig = region_start(VFIO_PCI_CONFIG_REGION_INDEX);

unsigned long fd_argument(const Target& target) {
    return static_cast<unsigned long>(target.device);
}

/// GET_REGION_INFO's argument in memory that a 32-bit pointer reaches.
vfio_region_info* low_region_info() {
    auto* info = static_cast<vfio_region_info*>(low_page());
    if (info == nullptr) return nullptr;
    info->argsz = sizeof *info;
    info->index = VFIO_PCI_CONFIG_REGION_INDEX;
    return info;
}

Attempt ioctl32(const Target& target) {
    // Any 32-bit ioctl is refused, so a granted command will do as well as another.
    vfio_region_info* info = low_region_info();
    if (info == nullptr) return preparation_failed("a page below 4 GiB");
    return judged(
        call32(kIoctl, fd_argument(target), vfio_request(8), reinterpret_cast<unsigned long>(info)));
}

Attempt fioclex32(const Target& target) {
    return judged(call32(kIoctl, fd_argument(target), FIOCLEX, 0));
}

/// What mmap2 is given in pages, old mmap in bytes: below 4 GiB only region 0 is in reach of the latter.
Attempt mmap2_at(const Target& target, off_t offset, size_t length, int prot) {
    const auto page = static_cast<uint64_t>(offset) / kPage;
    if (page > UINT32_MAX) return nothing("the offset does not fit in 32 bits of pages");
    return judged(
        call32(kMmap2, 0, length, static_cast<unsigned long>(prot), MAP_SHARED, fd_argument(target), page));
}

Attempt mmap32_foreign(const Target& target) {
    return mmap2_at(target, foreign_page(target), kPage, PROT_READ);
}

Attempt mmap32_own(const Target& target) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    return mmap2_at(target, own->device_offset(), own->length, own->prot());
}

Attempt old_mmap32(const Target& target) {
    auto* block = static_cast<uint32_t*>(low_page());
    if (block == nullptr) return preparation_failed("a page below 4 GiB");
    block[1] = kPage;
    block[2] = PROT_READ;
    block[3] = MAP_SHARED;
    block[4] = static_cast<uint32_t>(target.device);
    block[5] = 0;  // region 0
    return judged(call32(kOldMmap, reinterpret_cast<unsigned long>(block)));
}

Attempt pread32(const Target& target) {
    void* buffer = low_page();
    if (buffer == nullptr) return preparation_failed("a page below 4 GiB");
    return judged(call32(kPread64, fd_argument(target), reinterpret_cast<unsigned long>(buffer), 4,
                         kConfig & 0xffffffff, static_cast<unsigned long>(kConfig) >> 32));
}

Attempt preadv32(const Target& target) {
    auto* block = static_cast<uint32_t*>(low_page());
    if (block == nullptr) return preparation_failed("a page below 4 GiB");
    const auto address = reinterpret_cast<unsigned long>(block);
    block[0] = static_cast<uint32_t>(address) + 64;
    block[1] = 4;
    return judged(call32(kPreadv, fd_argument(target), address, 1, kConfig & 0xffffffff,
                         static_cast<unsigned long>(kConfig) >> 32));
}

Attempt read32(const Target& target) {
    void* buffer = low_page();
    if (buffer == nullptr) return preparation_failed("a page below 4 GiB");
    return judged(call32(kRead, fd_argument(target), reinterpret_cast<unsigned long>(buffer), 4));
}

Attempt ioctl_x32(const Target& target) {
    vfio_region_info* info = low_region_info();
    if (info == nullptr) return preparation_failed("a page below 4 GiB");
    // x32 has an ioctl of its own, number 514.
    return judged(syscall(kX32 | 514, target.device, vfio_request(8), info));
}

Attempt mmap_x32(const Target& target) {
    return judged(
        syscall(kX32 | SYS_mmap, nullptr, kPage, PROT_READ, MAP_SHARED, target.device, foreign_page(target)));
}

Attempt pread_x32(const Target& target) {
    uint32_t value = 0;
    return judged(syscall(kX32 | SYS_pread64, target.device, &value, sizeof value, kConfig));
}

}  // namespace

void add_compat_probes(Probes& probes) {
    const Control getpid32{"getpid by int $0x80", [](const Target&) { return judged(call32(kGetpid)); }};
    const Control getpid_x32{"getpid by its x32 number",
                             [](const Target&) { return judged(syscall(kX32 | SYS_getpid)); }};
    const char* no_bar0 = "it reaches region 0 only, and this device has no BAR 0";
    const struct {
        const char* name;
        const char* what;
        Attempt (*attempt)(const Target&);
        std::vector<int> inherent;
        const char* why;
        bool x32;
    } ways[] = {
        {"int80-ioctl", "32-bit ioctl of an asking command", ioctl32, {}, "", false},
        {"int80-fioclex", "32-bit ioctl FIOCLEX", fioclex32, {}, "", false},
        {"int80-mmap2", "32-bit mmap2 of a page outside the window", mmap32_foreign, {}, "", false},
        {"int80-mmap2-own", "32-bit mmap2 of the window itself", mmap32_own, {}, "", false},
        {"int80-old-mmap", "32-bit old mmap of region 0", old_mmap32, {EINVAL}, no_bar0, false},
        {"int80-pread64", "32-bit pread64 of configuration space", pread32, {}, "", false},
        {"int80-preadv", "32-bit preadv of configuration space", preadv32, {}, "", false},
        {"int80-read", "32-bit read", read32, {EINVAL}, no_bar0, false},
        {"x32-ioctl", "x32 ioctl of an asking command", ioctl_x32, {ENOSYS}, "this kernel has no x32", true},
        {"x32-mmap",
         "x32 mmap of a page outside the window",
         mmap_x32,
         {ENOSYS},
         "this kernel has no x32",
         true},
        {"x32-pread",
         "x32 pread of configuration space",
         pread_x32,
         {ENOSYS},
         "this kernel has no x32",
         true},
    };
    for (const auto& way : ways) {
        probes.push_back({.name = way.name,
                          .group = "compat",
                          .what = way.what,
                          .attempt = way.attempt,
                          .control = way.x32 ? getpid_x32 : getpid32,
                          .inherent = way.inherent,
                          .inherent_why = way.why});
    }
}

}  // namespace postern::hostile
