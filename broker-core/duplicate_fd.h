// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// A second fd of the same struct file, above the standard three, O_CLOEXEC. `what` is its name in the error,
/// such as EMFILE (fcntl(2), F_DUPFD_CLOEXEC).
[[nodiscard]] Result<UniqueFd> duplicate_fd(int fd, std::string_view what);

}  // namespace postern
