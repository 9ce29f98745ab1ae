// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace postern {

/// All of a file below /proc or in a cgroup; empty if it cannot be read.
std::string read_cgroup_file(const std::string& path);

/// In one write(2), as these files want it. 0 or errno.
int write_cgroup_file(const std::string& path, std::string_view value);

/// Whether `words`, separated by blanks, has `word`.
bool holds_word(std::string_view words, std::string_view word);

}  // namespace postern
