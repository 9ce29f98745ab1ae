// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace postern {

/// What its own help and version call it where it is not called bwrap.
inline constexpr const char* kBwrapCommand = "postern bwrap";

/// bubblewrap's command line, which reads its own words: `words` is what stands behind `program`, as its help
/// calls it. Gives the exit status.
[[nodiscard]] int run_bwrap(const std::string& program, const std::vector<std::string>& words);

}  // namespace postern
