// SPDX-License-Identifier: Apache-2.0
#include "broker-core/boot_clock.h"

#include <fmt/format.h>

namespace postern {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

}  // namespace

int64_t clock_time(clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return static_cast<int64_t>(time.tv_sec) * kSecond + time.tv_nsec;
}

int64_t realtime_ahead() {
    return clock_time(CLOCK_REALTIME) - clock_time(CLOCK_BOOTTIME);
}

std::string utc_text(int64_t nanoseconds) {
    const auto seconds = static_cast<time_t>(nanoseconds / kSecond);
    tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[32] = {};
    (void)std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    return fmt::format("{}.{:03}Z", text, nanoseconds % kSecond / 1'000'000);
}

}  // namespace postern
