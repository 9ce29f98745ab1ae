// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "broker-core/unique_fd.h"
#include "launcher/sandbox.h"

namespace postern {

/// The file that a client will be, found on the host before anything is started.
struct ExecTarget {
    std::string path;  ///< absolute
    UniqueFd file;     ///< O_PATH
    dev_t device = 0;  ///< with `inode` tells whether the path leads to the same file inside
    ino_t inode = 0;
    bool is_script = false;  ///< begins with "#!": cannot run through an fd alone
};

/// Finds `command` as execvp(3) would: as a path if it has a '/', else in `search_path` ("/usr/bin:/bin",
/// empty entries being the working folder). Error: status 127 for nothing there, 126 for something that
/// cannot be executed.
tl::expected<ExecTarget, LaunchError> find_exec_target(const std::string& command,
                                                       const std::string& search_path);

/// The paths that are tried in turn inside a sandbox whose files the host does not see. Pure.
std::vector<std::string> exec_candidates(const std::string& command, const std::string& search_path);

}  // namespace postern
