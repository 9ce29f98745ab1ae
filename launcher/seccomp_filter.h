// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <vector>

#include "broker-core/result.h"
#include "launcher/seccomp_profile.h"

namespace postern {

/// Compiles a profile into the program for seccomp(2), in libseccomp's binary tree shape (a third of the
/// installation time of its linear one).
Result<std::vector<sock_filter>> compile_seccomp_filter(const SeccompProfile& profile);

}  // namespace postern
