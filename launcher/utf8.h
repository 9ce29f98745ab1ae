// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

namespace postern {

/// Length of the sequence that `text`, which is not empty, begins with, in UTF-8 (Unicode 15, table 3-7). 0:
/// it begins with none; `bad` is then how many bytes could have begun one.
inline std::size_t utf8_sequence(std::string_view text, std::size_t& bad) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xC2 ? 0
                               : first < 0xE0 ? 2
                               : first < 0xF0 ? 3
                               : first < 0xF5 ? 4
                                              : 0;
    bad = 1;
    for (std::size_t i = 1; i < length; ++i) {
        const unsigned low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        const unsigned high = i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (i >= text.size() || byte(i) < low || byte(i) > high) return 0;
        bad = i + 1;
    }
    return length;
}

}  // namespace postern
