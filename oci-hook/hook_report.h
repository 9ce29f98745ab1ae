// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "broker-core/broker_message.h"
#include "broker-core/result.h"

namespace postern {

/// Exit status of a hook: of many a runtime it is all that users see. docs/containers.md has them.
enum class HookStatus : int {
    Usage = 2,         ///< the command line is wrong
    BadState = 10,     ///< what the runtime says of the container cannot be read
    NoSuchSlice = 11,  ///< nor a configuration that says which there are
    Busy = 12,         ///< the slice is in use
    Denied = 13,       ///< the broker's configuration does not allow it
    NoGrant = 14,      ///< the broker could not be asked, or failed: device, hardware, guard
    NotEntered = 15,   ///< the container could not be made the grant's sandbox
    NotMounted = 16,   ///< /run/postern of the container is not as the specification makes it
    NotServed = 17,    ///< the socket or its process could not be made
};

/// A failure, and of which kind it is.
struct HookError {
    HookStatus status;
    Error error;
};
using HookResult = tl::expected<void, HookError>;

[[nodiscard]] inline tl::unexpected<HookError> hook_failure(HookStatus status, Error error) {
    return tl::unexpected(HookError{status, std::move(error)});
}

/// None: the broker could not be asked. Pure.
[[nodiscard]] HookStatus status_of(std::optional<BrokerRefusal> refusal);

/// The file of a runtime's option --log, from its /proc/PID/cmdline, and whether it takes JSON
/// (--log-format). Pure.
struct RuntimeLog {
    std::string file;  ///< empty: there is none
    bool json = false;
};
[[nodiscard]] RuntimeLog runtime_log(std::string_view command_line);

/// Tells "postern-oci-hook: …" to all who may look: stderr; hook.log; the system's log; and, where stderr is
/// /dev/null as crun makes it, the runtime's own stderr and log, so that podman shows it. Returns the exit
/// status.
int report_hook_error(const HookError& error);

/// One line for the logs alone.
void log_hook(const std::string& line);

}  // namespace postern
