// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace postern {

/// What init is left with when the client runs.
struct InitJob {
    pid_t client = -1;              ///< as init sees it
    int status_pipe = -1;           ///< where the StatusRecord goes
    const int* kept_fds = nullptr;  ///< sorted: the fds that init keeps, status_pipe among them
    std::size_t kept_count = 0;
    bool pid_namespace = true;
    bool tell_cpu_time = false;  ///< the StatusRecord says how much the client has used
};

/// Gives up everything that is not needed to reap and to pass signals on (fds, capabilities, most system
/// calls), then does that until the client ends, and exits. In a pid namespace the kernel then kills whatever
/// the client left behind. Only async-signal-safe calls; all signals are blocked.
[[noreturn]] void run_init(const InitJob& job);

}  // namespace postern
