// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launcher/sandbox_spec.h"

namespace postern {

/// All that a launch without a device is decided by before the caller's environment and command are looked
/// at: a profile with its flags, read, checked and compiled.
struct CompiledLaunch {
    /// Without argv, env, fds and cgroup_fd.
    SandboxSpec spec;
    std::vector<std::string> env_keep;
    std::map<std::string, std::string> env_set;
    std::vector<std::pair<std::string, std::string>> cgroup_limits;
    std::vector<std::string> weakenings;  ///< lines to be printed at the launch
    bool quiet = false;                   ///< … or not, nor what the kernel cannot enforce
};

/// As bytes, for a file of this build of postern on this machine.
[[nodiscard]] std::string encode_launch(const CompiledLaunch& launch);
/// nullopt: those are no bytes of encode_launch().
[[nodiscard]] std::optional<CompiledLaunch> decode_launch(std::string_view bytes);

}  // namespace postern
