// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "launcher/sandbox.h"
#include "launcher/status_report.h"
#include "launcher/supervisor.h"

namespace postern {

/// What is known of a client beside itself.
struct ClientPlace {
    Namespaces namespaces;         ///< those of its own
    std::string cgroup;            ///< empty: the launcher's
    std::string grant;             ///< empty: none
    int cgroup_fd = -1;            ///< borrowed; -1: none
    bool has_filter = false;       ///< of seccomp(2)
    bool child_is_client = false;  ///< see StatusReport::Started
    /// Where a line about the client's end goes instead of stderr; false: there after all.
    std::function<bool(const std::string& line)> say = {};
};

/// Waits for the one client, tells `status` and on stderr how it ended, and gives its exit status.
int supervise(Supervisor& supervisor, StatusReport& status, RunningClient client, const ClientPlace& place);

}  // namespace postern
