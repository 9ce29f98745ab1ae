// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace postern {

/// What a kept launch may be taken for: everything that a compiled launch depends on but the content of the
/// files that it was read from.
struct LaunchKey {
    std::string text;  ///< this program, this kernel, the options, and what those are relative to
    std::vector<std::string> command;  ///< the client's, not part of the key
};

/// `words` is the command line behind "postern". nullopt: not a `postern run` that could be kept, because it
/// has an option whose effect is not one on the sandbox alone, or because it is not plain where the command
/// begins.
[[nodiscard]] std::optional<LaunchKey> launch_key(const std::vector<std::string>& words);

}  // namespace postern
