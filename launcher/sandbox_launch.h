// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/child.h"
#include "launcher/child_command.h"
#include "launcher/sandbox.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// A launch that is under way: what start_sandbox() does in one go, in its parts.
struct SandboxLaunch {
    /// `wanted` is borrowed.
    explicit SandboxLaunch(const SandboxSpec& wanted) : spec(wanted) {}

    /// fds that exist only meanwhile, and what the child gets of them.
    struct Fds {
        UniqueFd report_read, report_write;
        UniqueFd status_read, status_write;
        UniqueFd go_read, go_write;
        UniqueFd launcher;
        UniqueFd proc;
        std::vector<UniqueFd> sources;
        UniqueFd root;
        UniqueFd target;
    };

    const SandboxSpec& spec;
    ChildPlan plan;
    Fds fds;
    std::vector<char> command;  ///< what the plan's is laid out in, unless it is told late
    RunningClient client;
    Status prepared;
};

/// Whether this process has the right to open for the child what the child itself may not (CAP_SYS_ADMIN).
[[nodiscard]] bool may_open_for_child();

/// Starts the child and lets it go on. With the plan's late_command and command_socket set, it waits for its
/// command where nothing else is left to be done, and the spec's `argv` and `env` do not matter. On an error
/// nothing is left.
[[nodiscard]] tl::expected<void, LaunchError> begin_launch(SandboxLaunch& launch);

/// What the client of `spec` becomes in a sandbox as `plan` has it; looks for it on the host if the root is
/// the host's. `target` owns the text's target_tree.
[[nodiscard]] tl::expected<CommandText, LaunchError> find_command(const SandboxSpec& spec,
                                                                  const ChildPlan& plan, UniqueFd& target);

/// Waits until the client runs as `command`, or why it does not.
[[nodiscard]] tl::expected<RunningClient, LaunchError> end_launch(SandboxLaunch& launch,
                                                                  const std::string& command);

}  // namespace postern
