// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/find_crun.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "broker-core/broker_message.h"

namespace postern {
namespace {

constexpr const char* kUsualFolders = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

bool is_this_program(const std::string& path) {
    struct stat other {};
    struct stat own {};
    return ::stat(path.c_str(), &other) == 0 && ::stat("/proc/self/exe", &own) == 0 &&
           other.st_dev == own.st_dev && other.st_ino == own.st_ino;
}

bool is_program(const std::string& path) {
    struct stat found {};
    return ::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode) && ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

Result<std::string> find_crun() {
    if (const char* named = std::getenv("POSTERN_CRUN"); named != nullptr && *named != '\0') {
        if (!is_program(named)) return fail("POSTERN_CRUN={}: is not a program", one_line(named));
        if (is_this_program(named)) return fail("POSTERN_CRUN={}: is postern-crun itself", one_line(named));
        return std::string(named);
    }
    const char* path = std::getenv("PATH");
    const std::string folders = fmt::format("{}:{}", path != nullptr ? path : "", kUsualFolders);
    std::string_view rest = folders;
    while (!rest.empty()) {
        const size_t colon = rest.find(':');
        const std::string_view folder = rest.substr(0, colon);
        rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon + 1);
        // Not one in whatever folder the caller happens to be in.
        if (!folder.starts_with('/')) continue;
        std::string file = fmt::format("{}/crun", folder);
        if (is_program(file) && !is_this_program(file)) return file;
    }
    return fail("crun is not installed: none in PATH={} nor in {}; install it, or name it in POSTERN_CRUN",
                one_line(path != nullptr ? path : ""), kUsualFolders);
}

}  // namespace postern
