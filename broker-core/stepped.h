// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace postern {

/// A number that may differ from slice to slice: base + slice × stride.
struct Stepped {
    uint64_t base = 0;
    uint64_t stride = 0;

    /// Overflow is refused when the profile is read.
    [[nodiscard]] uint64_t at(unsigned slice) const { return base + slice * stride; }
};

}  // namespace postern
