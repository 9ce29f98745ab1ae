// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace postern {

/// The system call that a seccomp filter killed a process for.
struct ForbiddenCall {
    int number = 0;
    std::string name;  ///< empty: this build knows none
    std::string abi;   ///< "x86_64", "i386" or "x32"

    bool operator==(const ForbiddenCall&) const = default;
};

/// The call of one record of /dev/kmsg, if it is the kernel's own (audit type 1326) and tells of process
/// `pid` not before `since`. Pure.
[[nodiscard]] std::optional<ForbiddenCall> read_seccomp_record(std::string_view record, pid_t pid,
                                                               std::chrono::system_clock::time_point since);

/// Looks through the kernel's log for the call that process `pid`, which has just ended by SIGSYS, was killed
/// for. wait(2) tells no more than the signal, and a dead process keeps no registers: this log is the only
/// place that holds the call without a tracer, and without a filter that asks a helper instead of killing at
/// once. nullopt: the log is not for this user (kernel.dmesg_restrict), pids are another namespace's, or the
/// record went to auditd instead.
///
/// The record comes a moment after the end: waits for it as long as `patience`.
[[nodiscard]] std::optional<ForbiddenCall> find_forbidden_call(pid_t pid,
                                                               std::chrono::system_clock::time_point since,
                                                               std::chrono::milliseconds patience);

}  // namespace postern
