// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "broker-core/json_reader.h"

namespace postern {

/// One option or positional of a command, as the command line parser has it.
struct OptionInfo {
    std::vector<std::string> names;  ///< "--device", "-h"; empty for a positional
    std::vector<std::string>
        values;  ///< what its words are: {"SRC", "DEST"}, {"NAME|FILE"}; empty for a flag
    std::string help;
    std::string group;
    bool required = false;
};

/// A command with all below it: what help, completion and the manual all tell of.
struct CommandInfo {
    std::vector<std::string> path;  ///< "postern", "profile", "lint"
    std::string help;
    bool launches = false;  ///< the first word that is no option begins a client's command line
    std::vector<OptionInfo> options;
    std::vector<OptionInfo> positionals;
    std::vector<CommandInfo> commands;
};

/// Reads what the parser was told; what is hidden there is left out.
[[nodiscard]] CommandInfo read_command_tree(const CLI::App& app);
[[nodiscard]] Json to_json(const CommandInfo& command);

/// Every command says the program's version, not only the program.
void add_version_flags(CLI::App& app, const std::string& version);

}  // namespace postern
