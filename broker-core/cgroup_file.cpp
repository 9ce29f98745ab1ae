// SPDX-License-Identifier: Apache-2.0
#include "broker-core/cgroup_file.h"

#include "broker-core/file.h"

namespace postern {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{16} << 20;

}  // namespace

std::string read_cgroup_file(const std::string& path) {
    return read_file(path, kMaxBytes).value_or("");
}

int write_cgroup_file(const std::string& path, std::string_view value) {
    const Status written = write_file(path, value);
    return written ? 0 : written.error().errnum;
}

bool holds_word(std::string_view words, std::string_view word) {
    while (!words.empty()) {
        const std::size_t length = words.find_first_of(" \n");
        if (words.substr(0, length) == word) return true;
        words.remove_prefix(length == std::string_view::npos ? words.size() : length + 1);
    }
    return false;
}

}  // namespace postern
