// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// Whether all of the `count` fds from 3 on are open, and inherited.
[[nodiscard]] bool are_open(unsigned count);

/// Lets the program that this process becomes next inherit, besides 0, 1 and 2, exactly: the fds from 3 on
/// that the caller passes on, `count` of them, and then `more`, in that order and without a gap. All else
/// closes with exec(2). Error: one of the caller's is not open.
[[nodiscard]] Status pass_on_fds(unsigned count, std::vector<UniqueFd> more);

}  // namespace postern
