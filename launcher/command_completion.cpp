// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "launcher/commands.h"
#include "launcher/completion.h"

namespace postern {

Command add_completion_command(CLI::App& app) {
    auto form = std::make_shared<std::string>();
    app.add_subcommand("completion",
                       "print a shell's completion of this command line, or all commands as JSON")
        ->add_option("FORM", *form, "bash, fish or json")
        ->required()
        ->check(CLI::IsMember({"bash", "fish", "json"}));
    return [form, &app](const CommandLine&) {
        const CommandInfo root = read_command_tree(app);
        fmt::print("{}", *form == "bash"   ? bash_completion(root)
                         : *form == "fish" ? fish_completion(root)
                                           : to_json(root).dump(2) + "\n");
        return 0;
    };
}

}  // namespace postern
