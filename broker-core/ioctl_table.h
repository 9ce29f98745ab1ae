// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace postern {

/// One ioctl of a VFIO device file, as linux/vfio.h numbers it.
struct IoctlEntry {
    std::string_view name;
    uint32_t number;
    std::string_view words;  ///< what a client may do with it, as `postern profile explain` says it
    /// Why granting it without argument rules undoes the windows; empty where it does not.
    std::string_view danger;
};

[[nodiscard]] std::span<const IoctlEntry> vfio_device_ioctls();
[[nodiscard]] const IoctlEntry* find_ioctl(std::string_view name);
[[nodiscard]] const IoctlEntry* find_ioctl(uint32_t number);

}  // namespace postern
