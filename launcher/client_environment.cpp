// SPDX-License-Identifier: Apache-2.0
#include "launcher/client_environment.h"

#include <unistd.h>

#include <algorithm>

extern char** environ;

namespace postern {

std::vector<std::string> own_environment() {
    std::vector<std::string> result;
    for (char** entry = environ; *entry != nullptr; ++entry) result.emplace_back(*entry);
    return result;
}

std::vector<std::string> client_environment(const std::vector<std::string>& keep,
                                            const std::map<std::string, std::string>& set,
                                            const std::vector<std::string>& environment) {
    std::vector<std::string> result;
    for (const std::string& entry : environment) {
        const std::string name = entry.substr(0, entry.find('='));
        const bool kept = std::find(keep.begin(), keep.end(), name) != keep.end();
        if (kept && !set.contains(name)) result.push_back(entry);
    }
    for (const auto& [name, value] : set) result.emplace_back(name).append("=").append(value);
    return result;
}

}  // namespace postern
