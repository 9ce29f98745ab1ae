// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// What an ioctl is asked of. The same number means different things on different files.
enum class IoctlFile { Device, Group, Container, Iommufd, DmaBuf, Udmabuf, Kvm };

/// What an ioctl does with its third argument, as far as a rule on it is concerned.
enum class Argument {
    None,        ///< nothing
    Number,      ///< it is a number, or an opaque pointer
    Block,       ///< a struct that the kernel only reads
    BlockTwice,  ///< a struct that is written back after the work is done: sealed, it is done and then fails
                 ///< with EFAULT; the same call again answers EEXIST or ENOENT, so that a client can tell
    Answer,      ///< a struct that the answer is written into: sealed, there is no answer
};

/// A name for a value of a field.
struct FieldValue {
    std::string_view name;
    uint64_t value;
};

/// A field of an argument block, as the uapi header lays it out.
struct IoctlField {
    std::string_view name;
    uint16_t offset;  ///< bytes
    uint8_t width;    ///< bytes: 1, 2, 4, 8
    std::span<const FieldValue> values;
};

/// One ioctl.
struct IoctlEntry {
    IoctlFile file;
    std::string_view name;
    uint32_t number;
    std::string_view words;  ///< what a client may do with it, as `postern profile explain` says it
    /// Why granting it without argument rules undoes the windows; empty where it does not.
    std::string_view danger;
    Argument argument = Argument::None;
    uint16_t block_size = 0;               ///< bytes that the kernel reads at least
    std::optional<uint16_t> size_at = {};  ///< where the block says its own size (argsz)
    std::span<const IoctlField> fields = {};
};

[[nodiscard]] std::span<const IoctlEntry> known_ioctls();
/// Of any file.
[[nodiscard]] const IoctlEntry* find_ioctl(std::string_view name);
/// Of files of one sort.
[[nodiscard]] const IoctlEntry* find_ioctl(IoctlFile file, std::string_view name);
[[nodiscard]] const IoctlEntry* find_ioctl(IoctlFile file, uint32_t number);
[[nodiscard]] std::vector<std::string_view> ioctl_names(IoctlFile file);

/// "VFIO_DEVICE_SET_IRQS", or the number where the table does not know it.
[[nodiscard]] std::string ioctl_name(IoctlFile file, uint32_t number);
/// The fields that `block`, the start of an argument block, holds: "index=2 start=1".
[[nodiscard]] std::string describe_block(const IoctlEntry& entry, std::span<const uint8_t> block);

}  // namespace postern
