// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/cgroup_events.h"
#include "launcher/forbidden_call.h"
#include "launcher/sandbox.h"

namespace postern {

/// What is known beside the way in which a client ended.
struct ExitEvidence {
    CgroupEvents events;                ///< of the client's own cgroup
    std::optional<ForbiddenCall> call;  ///< by the kernel's log
    bool has_filter = false;            ///< the sandbox has a seccomp filter
};

/// Why a client ended.
struct ExitReason {
    enum class Kind {
        Exited,   ///< by itself
        Signal,   ///< by `signal`, of which no more is known
        Time,     ///< by the time limit (signal 0) or the resource limit cpu (SIGXCPU)
        CpuTime,  ///< by the limit of CPU time: SIGXCPU, or SIGKILL of one that went on
        Memory,   ///< by an OOM killer
        Seccomp,  ///< by a seccomp filter, for `call` where it is known
    };
    Kind kind = Kind::Exited;
    int signal = 0;  ///< 0 where none ended it
    std::optional<ForbiddenCall> call;
};

/// Pure.
[[nodiscard]] ExitReason find_exit_reason(const ClientExit& exit, const ExitEvidence& evidence);

/// "status", "signal", "time", "memory" or "seccomp": what --json-status-fd tells.
[[nodiscard]] std::string_view exit_reason_name(ExitReason::Kind kind);

/// Which key of the profile set the limit in time: "time_limit", "cpu_limit" or "rlimits.cpu"; empty where
/// none was hit. Pure.
[[nodiscard]] std::string_view hit_time_limit(const ExitReason& reason);

/// "SIGSYS"; of one without a name "signal 40".
[[nodiscard]] std::string signal_name(int signal);

/// What a person should know of the end, a line each: which limit or filter it was, and what to do. Empty
/// where the client just ended. Pure.
[[nodiscard]] std::vector<std::string> exit_messages(const ExitReason& reason, const CgroupEvents& events);

}  // namespace postern
