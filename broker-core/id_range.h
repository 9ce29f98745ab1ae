// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace postern {

/// One line of a user namespace's map: `count` ids from `inside` on are those from `outside` on.
struct IdRange {
    std::uint32_t inside = 0;
    std::uint32_t outside = 0;
    std::uint32_t count = 1;

    bool operator==(const IdRange&) const = default;
};

}  // namespace postern
