// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "broker-core/result.h"

namespace postern {

/// Exit status of `postern run` and `pool` where postern itself failed.
inline constexpr int kLaunchFailed = 125;
/// Exit status of the other commands where they failed.
inline constexpr int kFailed = 1;

/// Writes all of `text` to `fd` (borrowed). 0 or errno: EPIPE, never SIGPIPE, where a reader has gone away,
/// which must not end postern and its client with it.
int write_out(int fd, std::string_view text);

/// Says something on stderr. A launch goes on where that is closed, full, or read by nobody.
template <typename... Args>
void tell(fmt::format_string<Args...> format, Args&&... args) {
    (void)write_out(2, fmt::format(format, std::forward<Args>(args)...));
}

/// Tells "postern: …" and returns `status`.
int report(const Error& error, int status);

}  // namespace postern
