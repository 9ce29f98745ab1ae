// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/named_fd.h"

namespace postern {

/// What goes over a unix socket in front of a grant's fds, as postern_open_socket() of client/postern.h reads
/// it: "postern", a version, and the names of `fds` in their order.
[[nodiscard]] std::string vended_header(const std::vector<NamedFd>& fds);

}  // namespace postern
