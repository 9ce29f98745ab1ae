// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

namespace postern {

/// What the client becomes, as exec takes it. All pointers lead into the memory that it was laid out in.
struct ChildCommand {
    char** argv = nullptr;              ///< ends with nullptr
    char** env = nullptr;               ///< ends with nullptr
    char* const* pid_digits = nullptr;  ///< where in `env` the client's pid goes; ends with nullptr
    /// Host root: the one absolute path, and the file it must lead to. Other roots: what is tried in turn.
    /// Ends with nullptr.
    const char* const* candidates = nullptr;
    bool has_target = false;
    bool target_is_script = false;
    dev_t target_device = 0;
    ino_t target_inode = 0;
    int target_tree = -1;  ///< the file as a read-only mount of its own, opened by the launcher, or -1
};

/// The same as values.
struct CommandText {
    std::vector<std::string> argv;
    std::vector<std::string> env;
    std::vector<std::string> pid_variables;  ///< added to `env` with room for a pid
    std::vector<std::string> candidates;
    bool has_target = false;
    bool target_is_script = false;
    dev_t target_device = 0;
    ino_t target_inode = 0;
    int target_tree = -1;

    /// Bytes that lay_out() takes at most.
    [[nodiscard]] std::size_t size() const;
    /// Writes all of it into `room`, which is of size() bytes and aligned as a ChildCommand; that is what it
    /// begins with.
    ChildCommand& lay_out(void* room) const;
};

}  // namespace postern
