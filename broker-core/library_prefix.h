// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace postern {

/// What program_prefix() (file.h) says from now on: a library's files do not lie where the running program
/// does. Before other threads ask.
void set_program_prefix(std::string prefix);

}  // namespace postern
