// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// Decides everything that the profile's words leave open: ids, numbers, the seccomp program, the environment
/// (`environment` is the caller's). The command, fds and cgroup are the caller's to add. Errors name the key.
/// `read`, if given, gets the files that this read.
[[nodiscard]] Result<SandboxSpec> sandbox_from_profile(const Profile& profile,
                                                       const std::vector<std::string>& environment,
                                                       std::vector<ReadFile>* read = nullptr);

/// What of `environment` the client gets, and what it gets besides.
[[nodiscard]] std::vector<std::string> client_environment(const std::vector<std::string>& keep,
                                                          const std::map<std::string, std::string>& set,
                                                          const std::vector<std::string>& environment);

/// environ(7) as a value.
[[nodiscard]] std::vector<std::string> own_environment();

}  // namespace postern
