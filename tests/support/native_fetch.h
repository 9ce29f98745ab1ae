// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

#include "bpf/decide.h"

namespace postern::test {
/// A longer copy fails, as one does that reaches into a page that is not in memory.
inline uint32_t longest_fetch = UINT32_MAX;
}  // namespace postern::test

/// The decision header's way to an argument block, for tests whose blocks lie in their own memory.
static __always_inline long postern_fetch(void* into, __u32 length, __u64 address) {
    if (length > postern::test::longest_fetch) return -1;
    std::memcpy(into, reinterpret_cast<const void*>(address), length);
    return 0;
}
