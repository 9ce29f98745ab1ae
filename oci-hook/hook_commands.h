// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/broker_config.h"
#include "broker-core/broker_message.h"
#include "broker-core/result.h"

// The subcommands of `postern-oci-hook`. Each gets the words behind its name and returns the exit status;
// errors are told there, once, by report_hook_error().

namespace postern {

/// What hooks are told: by their specification (`postern cdi generate`), or by postern-crun.
struct HookOptions {
    std::string slice;
    std::string grant;
    std::string broker = kBrokerSocket;
    std::string config = kBrokerConfig;
};

/// What a hook is about.
enum class HookSubject { Slice, Grant, Nothing };
/// Reads `--broker PATH`, `--config DIR`, and what the hook is about, `--slice NAME` or `--grant ID`; pure.
/// Error: another word, or that is missing.
[[nodiscard]] Result<HookOptions> read_hook_options(const std::vector<std::string>& words,
                                                    HookSubject subject = HookSubject::Slice);

/// A container is being made: gives it the slice. State of the container on stdin.
int run_create_runtime(const std::vector<std::string>& words);
/// A container has ended: nothing of its grant is left. State of the container on stdin.
int run_poststop(const std::vector<std::string>& words);
/// For podman's hooks dir: reads a container's config.json on stdin, and writes it to stdout with the edits
/// of the slice that its annotation names.
int run_precreate(const std::vector<std::string>& words);

/// The container on stdin, which postern-crun makes, has the grant `--grant ID` from now on.
int run_enter(const std::vector<std::string>& words);
/// Such a container has ended: returns when its slice is free.
int run_leave(const std::vector<std::string>& words);

}  // namespace postern
