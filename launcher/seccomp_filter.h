// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <vector>

#include "broker-core/result.h"
#include "launcher/seccomp_profile.h"

namespace postern {

/// Compiles a profile into the program for seccomp(2): the tree of seccomp_tree.h over all calls, and what
/// libseccomp makes of the rules on arguments. 32-bit and x32 calls end the process.
Result<std::vector<sock_filter>> compile_seccomp_filter(const SeccompProfile& profile);

}  // namespace postern
