// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "launcher/client_environment.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// Decides everything that the profile's words leave open: ids, numbers, the seccomp program, the environment
/// (`environment` is the caller's). The command, fds and cgroup are the caller's to add. Errors name the key.
/// `read`, if given, gets the files that this read.
[[nodiscard]] Result<SandboxSpec> sandbox_from_profile(const Profile& profile,
                                                       const std::vector<std::string>& environment,
                                                       std::vector<ReadFile>* read = nullptr);

}  // namespace postern
