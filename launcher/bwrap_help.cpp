// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>

#include "launcher/bwrap_options.h"
#include "launcher/command_bwrap.h"
#include "launcher/commands.h"

namespace postern {

Command add_bwrap_command(CLI::App& app) {
    CLI::App* command =
        app.add_subcommand("bwrap", "bubblewrap's command line, with its meaning, on postern's sandbox");
    command->footer("usage: postern bwrap [OPTIONS...] [--] COMMAND [ARGS...]");
    command->prefix_command();
    // What the parser is told here is for help, completion and the manual: the order of these options has a
    // meaning, so they are read by parse_bwrap().
    for (const BwrapOption& option : bwrap_options()) {
        if (option.name == "--help" || option.name == "--version") continue;
        const std::string name(option.name);
        if (option.words.empty()) {
            command->add_flag_callback(
                name, [] {}, std::string(option.help));
        } else {
            const auto words = 1 + std::count(option.words.begin(), option.words.end(), ' ');
            command
                ->add_option_function<std::vector<std::string>>(
                    name, [](const std::vector<std::string>&) {}, std::string(option.help))
                ->type_name(std::string(option.words))
                ->type_size(static_cast<int>(words));
        }
    }
    return [](const CommandLine& rest) { return run_bwrap(kBwrapCommand, rest); };
}

}  // namespace postern
