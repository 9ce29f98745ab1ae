// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/json_reader.h"
#include "broker-core/result.h"
#include "launcher/command_tree.h"
#include "launcher/commands.h"
#include "launcher/report.h"
#include "launcher/systemd_run_options.h"

namespace postern {
namespace {

/// Those of `postern run`, as its own parser has them.
std::vector<OptionInfo> read_run_options() {
    CLI::App app("", "postern");
    (void)add_run_command(app);
    return read_command_tree(app).commands.front().options;
}

bool is_common(std::string_view name) {
    return name == "--help" || name == "-h" || name == "--version";
}

std::optional<std::string> variable(const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
}

SystemdRunCaller this_caller() {
    char* folder = ::get_current_dir_name();
    SystemdRunCaller caller{program_prefix() + "/bin/postern", folder != nullptr ? folder : "/",
                            variable("POSTERN_PROFILE_PATH").value_or("")};
    std::free(folder);
    return caller;
}

/// As a shell takes it.
std::string quoted(const std::string& word) {
    constexpr std::string_view kPlain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,@%+";
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
    std::string result = "'";
    for (const char c : word) {
        if (c == '\'') {
            result += "'\\''";
        } else {
            result += c;
        }
    }
    return result + "'";
}

int print_line(const std::vector<std::string>& line, bool json) {
    if (json) {
        fmt::print("{}\n", Json{{"postern", 1}, {"command", line}}.dump(2));
        return 0;
    }
    std::string text;
    for (const std::string& word : line) text += (text.empty() ? "" : " ") + quoted(word);
    fmt::print("{}\n", text);
    return 0;
}

void add_described(CLI::App& command, const std::string& names, const std::string& words,
                   const std::string& help, const std::string& group) {
    CLI::Option* option = nullptr;
    if (words.empty()) {
        option = command.add_flag_callback(
            names, [] {}, help);
    } else {
        option = command.add_option_function<std::vector<std::string>>(
            names, [](const std::vector<std::string>&) {}, help);
        option->type_name(words)->type_size(1 +
                                            static_cast<int>(std::count(words.begin(), words.end(), ' ')));
    }
    option->group(group);
}

}  // namespace

std::optional<int> run_systemd_run(const std::vector<std::string>& words,
                                   const std::optional<std::vector<std::string>>& rest) {
    if (!words.empty() && is_common(words.front())) return std::nullopt;
    const auto request = split_systemd_run(words, rest, read_run_options(), variable);
    if (!request) return report(std::move(Error(request.error())).within("systemd-run"), kLaunchFailed);
    std::vector<std::string> line = compose_systemd_run(*request, this_caller());
    if (request->dry_run) return print_line(line, request->json);
    if (request->json) {
        return report(Error{"systemd-run: --json is the form of --dry-run; add that, or leave it out", 0},
                      kLaunchFailed);
    }
    std::vector<char*> arguments;
    arguments.reserve(line.size() + 1);
    for (std::string& word : line) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ::execvp(arguments.front(), arguments.data());
    const int errnum = errno;
    return report(Error{fmt::format("systemd-run: {}; it comes with systemd, which starts the unit; without "
                                    "systemd use `postern run`",
                                    errno_text(errnum)),
                        errnum},
                  kLaunchFailed);
}

Command add_systemd_run_command(CLI::App& app) {
    CLI::App* command = app.add_subcommand(
        "systemd-run",
        "run one client as a transient unit of systemd's, with a slice of a device or without");
    command->footer(
        "usage: postern systemd-run [systemd-run options] [postern run options] -- CMD [ARG…]\n"
        "Numbers of --slice, --uid, --gid are postern's, names systemd's; --setenv and -E set the client's "
        "variables.");
    command->prefix_command();
    // What the parser is told here is for help, completion and the manual; split_systemd_run() reads them.
    std::vector<std::string> taken;
    for (const SystemdRunOption& each : systemd_run_options()) {
        std::string names(each.name);
        if (each.letter != '\0') names += std::string(",-") + each.letter;
        add_described(*command, names, std::string(each.word), std::string(each.help), "systemd-run");
        taken.emplace_back(each.name);
    }
    for (const OptionInfo& each : read_run_options()) {
        const std::string& name = each.names.front();
        if (is_common(name) || std::find(taken.begin(), taken.end(), name) != taken.end()) continue;
        std::string words;
        for (const std::string& word : each.values) words += (words.empty() ? "" : " ") + word;
        const bool is_ours = name == "--dry-run" || name == "--json";
        add_described(*command, name, words,
                      !is_ours              ? each.help
                      : name == "--dry-run" ? "print the command line of systemd-run and do nothing"
                                            : "print it as JSON",
                      each.group);
    }
    // Only where the words were "--help" or "--version".
    return [](const CommandLine&) { return kLaunchFailed; };
}

}  // namespace postern
