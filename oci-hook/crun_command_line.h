// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker-core/result.h"

// crun's command line, as far as postern-crun has to understand it: options, `create` or `run`, options, the
// container's ID (crun(1); options as argp has them: abbreviated, with and without "=", short ones together).
// Pure.

namespace postern {

struct CrunCommandLine {
    std::string command;  ///< "create", "run", or another's name; empty: there is none
    std::string bundle = ".";
    std::string config = "config.json";
    unsigned preserve_fds = 0;
    std::string log;         ///< of --log; empty: none
    std::string log_format;  ///< empty: text
    std::string id;
    size_t more_options = 0;  ///< the index of the word in front of which further options can be put

    [[nodiscard]] bool makes_container() const { return command == "create" || command == "run"; }
    /// The file that crun takes: config.json is the bundle's, others are the caller's.
    [[nodiscard]] std::string config_path() const;
};

/// What to know of the command line if it was not understood, too: the log is told of that.
struct CrunReading {
    CrunCommandLine line;
    std::optional<Error> error;  ///< an option that is unknown, or no ID at the end
    bool asks_for_help = false;  ///< --help, --usage, --version: nothing is made
};

/// `words`: without the program's name.
[[nodiscard]] CrunReading read_crun_command_line(const std::vector<std::string>& words);

/// Files that could be the container's config.json if the command line is not understood.
[[nodiscard]] std::vector<std::string> possible_configs(const std::vector<std::string>& words);

/// The command line with other fds and another configuration.
[[nodiscard]] std::vector<std::string> with_grant(std::vector<std::string> words, const CrunCommandLine& line,
                                                  unsigned preserve_fds, const std::string& config);

}  // namespace postern
