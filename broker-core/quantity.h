// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "broker-core/result.h"

namespace postern {

inline constexpr uint64_t kPageSize = 4096;  ///< x86-64; the guard's decision is compiled with the same.

/// Reads "0x3000", "12288", "4KiB", "2MiB", "1GiB", "1TiB". No sign, no fraction, no blank.
[[nodiscard]] Result<uint64_t> parse_quantity(std::string_view text);

/// Reads "250ms", "60s", "5min", "1h", or a plain number of seconds.
[[nodiscard]] Result<std::chrono::milliseconds> parse_duration(std::string_view text);

/// 4096 → "4KiB", 12288 → "12KiB", 100 → "100 bytes".
[[nodiscard]] std::string format_size(uint64_t bytes);

[[nodiscard]] constexpr uint64_t page_floor(uint64_t value) {
    return value & ~(kPageSize - 1);
}

/// Rounds up to a page; values within the last page of the range must be excluded by the caller.
[[nodiscard]] constexpr uint64_t page_ceil(uint64_t value) {
    return page_floor(value + kPageSize - 1);
}

/// Half-open range of bytes, [begin, end).
struct Range {
    uint64_t begin = 0;
    uint64_t end = 0;

    [[nodiscard]] constexpr bool contains(Range inner) const {
        return begin <= inner.begin && inner.end <= end;
    }
    [[nodiscard]] constexpr bool overlaps(Range other) const {
        return begin < other.end && other.begin < end;
    }
    [[nodiscard]] constexpr uint64_t size() const { return end - begin; }
    /// The pages that the range touches.
    [[nodiscard]] constexpr Range pages() const { return {page_floor(begin), page_ceil(end)}; }
};

}  // namespace postern
