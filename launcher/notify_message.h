// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace postern {

/// Largest message of sd_notify(3) that is looked at, in bytes; a longer one is dropped whole.
inline constexpr std::size_t kMaxNotifyMessage = 4096;
/// Longest STATUS=, in bytes; a longer one is left out.
inline constexpr std::size_t kMaxNotifyStatus = 1024;

/// What of a client's message (sd_notify(3): assignments, one a line) goes on to the service manager, one a
/// line: READY=1, RELOADING=1, STOPPING=1, WATCHDOG=1, WATCHDOG=trigger, STATUS=, ERRNO=,
/// EXTEND_TIMEOUT_USEC=, each once, the first of its name. Nothing else, so that a client speaks for itself
/// alone: no MAINPID=, no FDSTORE=. Empty: nothing goes on.
[[nodiscard]] std::string filter_notify_message(std::string_view message);

}  // namespace postern
