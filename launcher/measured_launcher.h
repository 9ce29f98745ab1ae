// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launcher/launch_root.h"

namespace postern {

/// A program that makes a sandbox, and how it is told to make the one that is measured: user, pid, mount,
/// net, ipc, uts and cgroup namespaces, a small root read-only, a fresh /proc, a tmpfs on /tmp, a host name,
/// a session, no_new_privs, no capabilities, the default seccomp filter.
struct MeasuredLauncher {
    std::string name;
    std::string label;               ///< with what its sandbox lacks
    std::vector<std::string> words;  ///< without the client's command; [0] is a path
    /// fd 9 of each launch, opened anew; empty for none.
    std::string filter;
    /// An OCI runtime: each launch has another name, behind `words`, and the command is the bundle's.
    bool is_oci = false;
};

/// All that this postern knows and this machine has, the floor first, then postern.
[[nodiscard]] Result<std::vector<MeasuredLauncher>> find_launchers(const LaunchRoot& root);

}  // namespace postern
