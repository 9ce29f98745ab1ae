// SPDX-License-Identifier: Apache-2.0
#include "launcher/exec_target.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace postern {
namespace {

tl::unexpected<LaunchError> refuse(int exit_status, Failure failure) {
    return tl::unexpected(LaunchError{std::move(failure.value()), exit_status});
}

std::string absolute_path(const std::string& path) {
    if (path.starts_with('/')) return path;
    char* folder = ::get_current_dir_name();
    if (folder == nullptr) return path;
    std::string result = std::string(folder) + "/" + path;
    std::free(folder);
    return result;
}

/// The first two bytes, if they can be read: a command may be executable without being readable.
bool begins_like_script(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    char start[2] = {};
    return file && ::read(file.get(), start, sizeof start) == 2 && start[0] == '#' && start[1] == '!';
}

}  // namespace

std::vector<std::string> exec_candidates(const std::string& command, const std::string& search_path) {
    if (command.find('/') != std::string::npos) return {command};
    std::vector<std::string> candidates;
    std::string_view rest = search_path;
    while (true) {
        const std::size_t end = rest.find(':');
        const std::string_view folder = rest.substr(0, end);
        candidates.push_back(folder.empty() ? "./" + command : std::string(folder) + "/" + command);
        if (end == std::string_view::npos) return candidates;
        rest.remove_prefix(end + 1);
    }
}

tl::expected<ExecTarget, LaunchError> find_exec_target(const std::string& command,
                                                       const std::string& search_path) {
    if (command.empty()) return refuse(127, fail("the command is an empty string"));
    // As execvp(3): what is found but cannot be run does not end the search, but decides the error.
    tl::unexpected<LaunchError> problem =
        command.find('/') != std::string::npos
            ? refuse(127, fail_errno(ENOENT, "{}", command))
            : refuse(127, fail("{}: command not found in PATH ({})", command, search_path));
    for (const std::string& candidate : exec_candidates(command, search_path)) {
        ExecTarget target;
        target.path = absolute_path(candidate);
        target.file.reset(::open(target.path.c_str(), O_PATH | O_CLOEXEC));
        struct stat status = {};
        if (!target.file || ::fstat(target.file.get(), &status) != 0) {
            const int errnum = errno;
            if (errnum != ENOENT && errnum != ENOTDIR)
                problem = refuse(126, fail_errno(errnum, "{}", target.path));
            continue;
        }
        if (S_ISDIR(status.st_mode)) {
            problem = refuse(126, fail("{}: is a folder, not a program", target.path));
            continue;
        }
        if (!S_ISREG(status.st_mode) || ::faccessat(AT_FDCWD, target.path.c_str(), X_OK, AT_EACCESS) != 0) {
            problem = refuse(126, fail("{}: is not executable; chmod +x it if it should be", target.path));
            continue;
        }
        target.device = status.st_dev;
        target.inode = status.st_ino;
        target.is_script = begins_like_script(target.path);
        return target;
    }
    return problem;
}

}  // namespace postern
