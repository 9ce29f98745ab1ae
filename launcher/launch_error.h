// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launcher/cgroup_events.h"
#include "launcher/child.h"
#include "launcher/sandbox.h"
#include "launcher/user_namespace_rules.h"

namespace postern {

/// Puts what the child reported into words: what, where, why, what to do. `rules` are this machine's, where
/// the launcher has no privileges. Pure.
LaunchError explain_report(const ChildReport& report, const ChildPlan& plan, const std::string& command,
                           const UserNamespaceRules& rules = {});

/// The child was killed before it came to be the client; `events` of its cgroup.
LaunchError explain_early_end(const CgroupEvents& events);

/// Why a user map could not be written.
Error explain_map_error(Error error, const UserNamespaceRules& rules);

/// Why clone3(2) with new namespaces failed, into the cgroup at `cgroup_fd` if there is one (else -1). Reads
/// the cgroup's type where that is behind it; `rules` are this machine's.
LaunchError explain_clone_error(int errnum, const Namespaces& namespaces, int cgroup_fd,
                                const UserNamespaceRules& rules = {});

}  // namespace postern
