// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

namespace postern {

/// What of `environment` the client gets, and what it gets besides.
[[nodiscard]] std::vector<std::string> client_environment(const std::vector<std::string>& keep,
                                                          const std::map<std::string, std::string>& set,
                                                          const std::vector<std::string>& environment);

/// environ(7) as a value.
[[nodiscard]] std::vector<std::string> own_environment();

}  // namespace postern
