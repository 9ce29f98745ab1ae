// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <x86intrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "broker-core/result.h"

namespace postern::cost {

/// Instructions that the machine, kernel included, has executed: under QEMU's `-icount shift=0` virtual time
/// is their number in nanoseconds, and the time stamp counter shows it.
inline uint64_t instructions() {
    return __rdtsc();
}

/// Error where the above is not so: a thousand instructions must count as a thousand.
[[nodiscard]] Status check_instructions_are_counted();

namespace detail {

/// With the reading of the counter.
template <typename Call, typename After>
[[nodiscard]] Result<long> gross(size_t calls, Call&& call, After&& after) {
    std::vector<uint64_t> costs(calls);
    size_t wrong = 0;
    const auto once = [&] {
        const uint64_t before = instructions();
        const bool right = call();
        const uint64_t cost = instructions() - before;
        wrong += right ? 0 : 1;
        after();
        return cost;
    };
    // Warm: pages, caches of the kernel's allocators.
    for (size_t i = 0; i < calls; i++) once();
    for (uint64_t& cost : costs) cost = once();
    if (wrong != 0) return fail("{} of {} calls did not go as they should", wrong, 2 * calls);
    const auto middle = costs.begin() + static_cast<ptrdiff_t>(calls / 2);
    std::nth_element(costs.begin(), middle, costs.end());
    return static_cast<long>(*middle);
}

}  // namespace detail

/// Instructions of one `call`, which says whether it went as it should: the median of `calls` of them, in
/// which neither a timer interrupt nor an allocator that fills its caches shows. `after` follows each and is
/// not counted. The error says how often `call` went wrong.
template <typename Call, typename After = void (*)()>
[[nodiscard]] Result<long> instructions_per_call(
    size_t calls, Call&& call, After&& after = [] {}) {
    POSTERN_ASSIGN(const long cost, detail::gross(calls, call, after));
    POSTERN_ASSIGN(const long of_counter, detail::gross(
                                              calls, [] { return true; }, [] {}));
    return cost - of_counter;
}

/// A call of some hundred instructions; one that takes another process and some ten thousand.
inline constexpr size_t kManyCalls = 1000;
inline constexpr size_t kFewCalls = 200;

}  // namespace postern::cost
