// SPDX-License-Identifier: Apache-2.0
#include "launcher/cgroup_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "broker-core/unique_fd.h"

namespace postern {

std::string read_cgroup_file(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

int write_cgroup_file(const std::string& path, std::string_view value) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file) return errno;
    return ::write(file.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size()) ? 0 : errno;
}

bool holds_word(const std::string& words, std::string_view word) {
    std::istringstream stream(words);
    for (std::string each; stream >> each;) {
        if (each == word) return true;
    }
    return false;
}

}  // namespace postern
