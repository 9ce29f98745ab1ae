// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/paths.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <utility>

namespace postern::hostile {

std::vector<std::string> entries_of(const std::string& folder) {
    std::vector<std::string> paths;
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(folder.c_str()), closedir);
    if (!listing) return paths;
    while (const dirent* entry = readdir(listing.get())) {
        const std::string name = entry->d_name;
        if (name == "." || name == "..") continue;
        std::string path = folder;
        path.append("/").append(name);
        paths.push_back(std::move(path));
    }
    return paths;
}

std::vector<std::string> lines_of(const std::string& path) {
    std::vector<std::string> lines;
    std::ifstream file(path);
    std::string line;
    while (std::getline(file, line)) lines.push_back(line);
    return lines;
}

std::vector<std::string> words_of(const std::string& line) {
    std::istringstream stream(line);
    return {std::istream_iterator<std::string>(stream), {}};
}

std::optional<uint64_t> number_of(std::string_view text, int base) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return value;
}

std::string scratch_folder() {
    for (const char* parent : {"/tmp", "/dev/shm", "/run"}) {
        std::string path = std::string(parent) + "/hostile-XXXXXX";
        if (mkdtemp(path.data()) != nullptr) return path;
    }
    return {};
}

Attempt try_each(std::span<const std::string> paths, const char* absent,
                 const std::function<Attempt(const std::string&)>& attempt) {
    const auto search = [paths](const Visit& visit) { (void)std::any_of(paths.begin(), paths.end(), visit); };
    return try_found(search, absent, attempt);
}

Attempt try_found(const std::function<void(const Visit&)>& search, const char* absent,
                  const std::function<Attempt(const std::string&)>& attempt) {
    Attempt strongest = failed(ENOENT, absent);
    search([&](const std::string& path) {
        Attempt now = attempt(path);
        const bool is_open = now.state == Attempt::State::Succeeded;
        const bool is_absence =
            now.state == Attempt::State::Failed && (now.errnum == ENOENT || now.errnum == ENOTDIR);
        if (is_open || (!is_absence && (strongest.errnum == ENOENT || now.errnum == EBUSY)))
            strongest = std::move(now);
        return is_open;
    });
    return strongest;
}

}  // namespace postern::hostile
