// SPDX-License-Identifier: Apache-2.0
#include "launcher/command_tree.h"

#include <CLI/CLI.hpp>
#include <sstream>

namespace postern {
namespace {

/// "SRC DEST" is two words, "UINT:INT in [1 - 9]" is one with what CLI11 adds for a check.
std::vector<std::string> value_words(const CLI::Option& option) {
    if (option.get_items_expected_max() == 0) return {};
    std::string name = option.get_type_name();
    if (const size_t check = name.find(" in ["); check != std::string::npos)
        name.erase(name.find_last_of(':', check));
    std::istringstream stream(name);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
}

OptionInfo read_option(const CLI::Option& option) {
    OptionInfo info;
    for (const std::string& name : option.get_lnames()) info.names.push_back("--" + name);
    for (const std::string& name : option.get_snames()) info.names.push_back("-" + name);
    info.values = option.get_positional() ? std::vector{option.get_name(true)} : value_words(option);
    info.help = option.get_description();
    info.group = option.get_group();
    info.required = option.get_required();
    return info;
}

CommandInfo read_command(const CLI::App& app, std::vector<std::string> path) {
    CommandInfo info;
    path.push_back(app.get_name());
    info.path = path;
    info.help = app.get_description();
    info.launches = app.get_prefix_command();
    for (const CLI::Option* option : app.get_options()) {
        if (option->get_group().empty()) continue;
        (option->get_positional() ? info.positionals : info.options).push_back(read_option(*option));
    }
    for (const CLI::App* below : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (!below->get_group().empty()) info.commands.push_back(read_command(*below, path));
    }
    return info;
}

Json to_json(const std::vector<OptionInfo>& options) {
    Json list = Json::array();
    for (const OptionInfo& each : options) {
        list.push_back({{"names", each.names},
                        {"values", each.values},
                        {"help", each.help},
                        {"group", each.group},
                        {"required", each.required}});
    }
    return list;
}

}  // namespace

CommandInfo read_command_tree(const CLI::App& app) {
    return read_command(app, {});
}

Json to_json(const CommandInfo& command) {
    Json commands = Json::array();
    for (const CommandInfo& below : command.commands) commands.push_back(to_json(below));
    return {{"path", command.path},
            {"help", command.help},
            {"launches", command.launches},
            {"options", to_json(command.options)},
            {"positionals", to_json(command.positionals)},
            {"commands", commands}};
}

void add_version_flags(CLI::App& app, const std::string& version) {
    app.set_version_flag("--version", version, "Print the version and exit");
    for (CLI::App* below : app.get_subcommands([](CLI::App*) { return true; }))
        add_version_flags(*below, version);
}

}  // namespace postern
