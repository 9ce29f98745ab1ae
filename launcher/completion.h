// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launcher/command_tree.h"

namespace postern {

/// Scripts that complete the words of a command line in a shell, made from the commands themselves.
[[nodiscard]] std::string bash_completion(const CommandInfo& root);
[[nodiscard]] std::string fish_completion(const CommandInfo& root);

}  // namespace postern
