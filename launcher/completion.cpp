// SPDX-License-Identifier: Apache-2.0
#include "launcher/completion.h"

#include <fmt/format.h>

#include <algorithm>

#include "completion_bash.h"

namespace postern {
namespace {

/// 'text' for bash and fish, which both take a single quote out of single quotes.
std::string in_quotes(const std::string& text) {
    std::string result = "'";
    for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return result + "'";
}

std::string joined(const std::vector<std::string>& words) {
    return fmt::format("{}", fmt::join(words, " "));
}

/// The lines of two tables: the words that may follow a command, and what an option's words are.
void add_bash_tables(const CommandInfo& command, std::string& text) {
    const std::string path = joined(command.path);
    std::vector<std::string> options;
    for (const OptionInfo& option : command.options)
        options.insert(options.end(), option.names.begin(), option.names.end());
    std::vector<std::string> commands;
    for (const CommandInfo& below : command.commands) commands.push_back(below.path.back());
    std::vector<std::string> positionals;
    for (const OptionInfo& option : command.positionals)
        positionals.insert(positionals.end(), option.values.begin(), option.values.end());
    const auto entry = [&](const char* table, const std::string& key, const std::string& value) {
        if (!value.empty()) text += fmt::format("    {}[{}]={}\n", table, in_quotes(key), in_quotes(value));
    };
    entry("options", path, joined(options));
    entry("commands", path, joined(commands));
    entry("values", path, joined(positionals));
    entry("launches", path, command.launches ? "yes" : "");
    for (const OptionInfo& option : command.options) {
        for (const std::string& name : option.names)
            entry("values", fmt::format("{} {}", path, name), joined(option.values));
    }
    for (const CommandInfo& below : command.commands) add_bash_tables(below, text);
}

/// A condition of fish for a command's own words: it is there, and no command below it.
std::string fish_condition(const CommandInfo& command) {
    std::vector<std::string> below;
    for (const CommandInfo& each : command.commands) below.push_back(each.path.back());
    const std::vector<std::string> above(command.path.begin() + 1, command.path.end());
    std::string condition = above.empty() ? "" : "__fish_seen_subcommand_from " + above.back();
    if (above.size() > 1) condition += fmt::format("; and __fish_seen_subcommand_from {}", above.front());
    if (!below.empty()) {
        condition += fmt::format("{}not __fish_seen_subcommand_from {}", condition.empty() ? "" : "; and ",
                                 joined(below));
    }
    return condition;
}

std::string fish_values(const std::string& kind) {
    if (kind == "NAME|FILE" || kind == "PROFILE") {
        return " -r -F -a '(command ls $POSTERN_PROFILE_PATH /etc/postern/profiles "
               "(path dirname (path dirname (path resolve (command -s postern))))/share/postern/profiles "
               "2>/dev/null | string match \"*.json\" | string replace .json \"\")'";
    }
    if (kind == "BDF") return " -x -a '(command ls /sys/bus/pci/devices)'";
    std::string words;
    bool files = false;
    for (size_t at = 0; at <= kind.size();) {
        const size_t end = std::min(kind.find('|', at), kind.size());
        const std::string word = kind.substr(at, end - at);
        files = files || word == "FILE" || word == "DIR" || word == "SRC" || word == "DEST";
        if (std::none_of(word.begin(), word.end(), [](char c) { return c >= 'A' && c <= 'Z'; }))
            words += (words.empty() ? "" : " ") + word;
        at = end + 1;
    }
    return fmt::format(" {}{}", files ? "-r -F" : "-x", words.empty() ? "" : " -a " + in_quotes(words));
}

void add_fish_lines(const CommandInfo& command, std::string& text) {
    const std::string begin = fmt::format("complete -c postern -n {}", in_quotes(fish_condition(command)));
    for (const OptionInfo& option : command.options) {
        text += begin;
        for (const std::string& name : option.names)
            text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
        if (!option.values.empty()) text += fish_values(option.values.front());
        text += fmt::format(" -d {}\n", in_quotes(option.help));
    }
    for (const OptionInfo& option : command.positionals) {
        text +=
            fmt::format("{}{} -d {}\n", begin, fish_values(option.values.front()), in_quotes(option.help));
    }
    for (const CommandInfo& below : command.commands) {
        text += fmt::format("{} -f -a {} -d {}\n", begin, below.path.back(), in_quotes(below.help));
        add_fish_lines(below, text);
    }
}

}  // namespace

std::string bash_completion(const CommandInfo& root) {
    std::string text = kCompletionBash;
    std::string tables;
    add_bash_tables(root, tables);
    constexpr std::string_view kPlace = "    # TABLES\n";
    return text.replace(text.find(kPlace), kPlace.size(), tables);
}

std::string fish_completion(const CommandInfo& root) {
    std::string text = "# Completion of postern's command line; made by `postern completion fish`.\n";
    add_fish_lines(root, text);
    return text;
}

}  // namespace postern
