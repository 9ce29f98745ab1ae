// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/result.h"

namespace postern::hostile {

/// VFIO puts region i at byte i << 40 of the device file (drivers/vfio/pci, VFIO_PCI_OFFSET_SHIFT).
[[nodiscard]] constexpr off_t region_start(unsigned region) {
    return static_cast<off_t>(region) << 40;
}

constexpr size_t kPage = 4096;

/// A window of the grant, as the manifest words it.
struct Window {
    std::string name;
    unsigned region = 0;
    off_t offset = 0;  ///< bytes from the region's start
    size_t length = 0;
    bool readable = false;
    bool writable = false;
    int mmap_fd = -1;  ///< borrowed; what the manifest says to map, -1 where it may only be read and written
    off_t mmap_offset = 0;
    bool by_pread =
        false;  ///< pread and pwrite of the device fd are granted: the manifest has "pread", or no "mmap"

    /// Where it lies in the device file.
    [[nodiscard]] off_t device_offset() const { return region_start(region) + offset; }
    [[nodiscard]] bool by_mmap() const { return mmap_fd >= 0; }
    /// PROT_READ, PROT_WRITE: all that the profile grants.
    [[nodiscard]] int prot() const;
};

struct NamedFd {
    std::string name;
    int fd = -1;  ///< borrowed
};

/// What a hostile client finds in its hands: the grant, and who is around.
struct Target {
    int device = -1;  ///< borrowed, as all fds here
    int manifest = -1;
    int dma = -1;
    int dmabuf = -1;
    std::string bdf;
    unsigned slice = 0;
    std::vector<NamedFd> fds;
    std::vector<Window> windows;
    std::vector<std::string> ioctls;        ///< granted without rules
    std::vector<std::string> ruled_ioctls;  ///< granted for some arguments only
    bool outside = false;                   ///< --expect allowed: no guard, no sandbox, root
    pid_t self = 0;                         ///< the program's first process, which forks one child an attempt
    pid_t launcher = 0;                     ///< its parent, 0 where that is in another pid namespace

    [[nodiscard]] bool granted(const std::string& ioctl) const;
    [[nodiscard]] bool ruled(const std::string& ioctl) const;
    /// The first window that may be mapped through the device fd, nullptr if none.
    [[nodiscard]] const Window* mapped() const;
    /// A mappable window that may not be written, nullptr if the profile has none.
    [[nodiscard]] const Window* read_only() const;
    /// A window for pread and pwrite, nullptr if the profile has none.
    [[nodiscard]] const Window* for_pread() const;
};

/// Reads the grant out of the environment and the manifest (contract.md, "What the client receives").
[[nodiscard]] Result<Target> find_target();

/// What there is in a sandbox without a device.
[[nodiscard]] Target target_without_grant();

}  // namespace postern::hostile
