// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// `name` has `value` in `environment`, whatever it had before.
inline void set_variable(std::vector<std::string>& environment, std::string_view name,
                         std::string_view value) {
    const std::string prefix = std::string(name) + "=";
    std::erase_if(environment, [&](const std::string& each) { return each.starts_with(prefix); });
    environment.push_back(prefix + std::string(value));
}

}  // namespace postern
