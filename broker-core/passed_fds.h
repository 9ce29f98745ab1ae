// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"

namespace postern {

/// The first passed fd: SD_LISTEN_FDS_START of sd_listen_fds(3).
inline constexpr int kFirstFd = 3;

/// The number of an fd that this process was started with: `name` is one of $LISTEN_FDNAMES, see
/// sd_listen_fds(3) (systemd's OpenFile= passes such), or a decimal number above 2. The fd stays the
/// caller's. Error: there is no such fd, or the variables are another process's.
[[nodiscard]] Result<int> find_passed_fd(const std::string& name);

}  // namespace postern
