// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ctime>
#include <string>

namespace postern {

inline constexpr int64_t kMillisecond = 1'000'000;  ///< ns

/// The time of a clock, in ns.
[[nodiscard]] int64_t clock_time(clockid_t clock);

/// How far the wall clock is ahead of CLOCK_BOOTTIME now, in ns: what turns the kernel's times into dates.
[[nodiscard]] int64_t realtime_ahead();

/// "2026-11-22T18:42:21.123Z" of nanoseconds since 1970.
[[nodiscard]] std::string utc_text(int64_t nanoseconds);

}  // namespace postern
