// SPDX-License-Identifier: Apache-2.0
#include "broker-core/profile_path.h"

#include <unistd.h>

#include <cstdlib>

#include "broker-core/file.h"

namespace postern {

std::vector<std::string> profile_search_path() {
    std::vector<std::string> folders;
    if (const char* path = std::getenv("POSTERN_PROFILE_PATH"); path != nullptr) {
        std::string_view rest = path;
        while (!rest.empty()) {
            const std::string_view folder = rest.substr(0, rest.find(':'));
            if (!folder.empty()) folders.emplace_back(folder);
            rest.remove_prefix(std::min(folder.size() + 1, rest.size()));
        }
    }
    folders.emplace_back("/etc/postern/profiles");
    folders.push_back(program_prefix() + "/share/postern/profiles");
    return folders;
}

std::optional<std::string> find_profile_file(std::string_view name) {
    if (name.find('/') != std::string_view::npos || name.ends_with(".json")) return std::string(name);
    for (const std::string& folder : profile_search_path()) {
        std::string file = folder + "/" + std::string(name) + ".json";
        if (::access(file.c_str(), F_OK) == 0) return file;
    }
    return std::nullopt;
}

}  // namespace postern
