// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/guard_policy.h"
#include "broker-core/ioctl_table.h"
#include "broker-core/json_reader.h"
#include "broker-core/stepped.h"

namespace postern {

/// The first and the last value of a range.
struct ValueRange {
    Stepped first;
    Stepped last;
};

/// A rule on one field of an ioctl's argument block: (value & mask) lies in one of the ranges.
struct FieldRule {
    std::string field;
    uint16_t offset = 0;  ///< bytes from the block's start
    uint8_t width = 4;    ///< bytes
    std::optional<uint64_t> mask;
    std::vector<ValueRange> ranges;
};

/// An ioctl that a profile grants; with `args`, only with a sealed argument block in which all of them hold.
struct IoctlRule {
    std::string name;
    uint32_t number = 0;
    std::vector<FieldRule> args;
    uint16_t block_size = 0;
    std::optional<uint16_t> size_at;
};

/// Reads one element of a profile's "ioctls": a name, or { "name": …, "args": […] }. `file` says whose ioctls
/// are meant; on a file of no known sort an ioctl is named by its number, and can have no rules.
[[nodiscard]] IoctlRule read_ioctl(const Json& value, const std::string& path, JsonReading& reading,
                                   std::optional<IoctlFile> file);

/// What the table knows of it: by its name, or by its number where the profile has that. Of several with one
/// number the one that is dangerous.
[[nodiscard]] const IoctlEntry* find_ioctl(const IoctlRule& rule);

/// What can be said of the rules of one file's ioctls together without hardware: values that do not fit their
/// field in some slice, rules that no call can fit, more tests than the guard holds.
[[nodiscard]] Status check_ioctls(const std::vector<IoctlRule>& ioctls, unsigned slices);

/// The ioctls of one file, and what a profile calls it.
struct IoctlList {
    std::string path;
    const std::vector<IoctlRule>* ioctls;
};
/// Of all files that one client gets: that none of their ioctls is a way around the rules on another.
[[nodiscard]] Status check_blocks_stay_sealed(const std::vector<IoctlList>& lists, unsigned slices);

/// As the guard takes it, with the values of one slice.
[[nodiscard]] GuardIoctl for_guard(const IoctlRule& rule, unsigned slice);
/// As manifests show it: the name, or { "name", "number", "args" } with the values of one slice.
[[nodiscard]] Json for_manifest(const IoctlRule& rule, unsigned slice);
/// "index = 2, start = 1 + slice × 1"; empty without rules.
[[nodiscard]] std::string in_words(const IoctlRule& rule);

}  // namespace postern
