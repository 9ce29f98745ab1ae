// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launcher/child.h"
#include "launcher/sandbox.h"

namespace postern {

/// Puts what the child reported into words: what, where, why, what to do. Pure.
LaunchError explain_report(const ChildReport& report, const ChildPlan& plan, const std::string& command);

/// Why clone3(2) with new namespaces failed, into the cgroup at `cgroup_fd` if there is one (else -1). Reads
/// the sysctls, or the cgroup's type, that are usually behind it.
LaunchError explain_clone_error(int errnum, const Namespaces& namespaces, int cgroup_fd);

}  // namespace postern
