// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/json_reader.h"
#include "broker-core/result.h"
#include "launcher/command_tree.h"
#include "launcher/commands.h"
#include "launcher/standard_fds.h"

namespace postern {
namespace {

using AddCommand = Command (*)(CLI::App& app);

struct NamedCommand {
    std::string_view name;
    AddCommand add;
};

constexpr NamedCommand kCommands[] = {
    {"run", [](CLI::App& app) { return add_run_command(app); }},
    {"pool", add_pool_command},
    {"bwrap", add_bwrap_command},
    {"systemd-run", add_systemd_run_command},
    {"check", add_check_command},
    {"devices", add_devices_command},
    {"bind", add_bind_command},
    {"unbind", add_unbind_command},
    {"profile", add_profile_command},
    {"bench", add_bench_command},
    {"ps", add_ps_command},
    {"revoke", add_revoke_command},
    {"monitor", add_monitor_command},
    {"broker", add_broker_command},
    {"guard", add_guard_command},
    {"cdi", add_cdi_command},
    {"completion", add_completion_command},
};

/// Describing all commands to the parser takes longer than a launch: one that is named alone is described
/// alone. (Completion tells of all of them.)
std::vector<Command> add_commands(CLI::App& app, const std::vector<std::string>& words,
                                  const std::optional<LaunchKey>& key) {
    if (key) return {add_run_command(app, key)};
    const std::string_view first = words.empty() ? std::string_view() : words.front();
    std::vector<Command> commands;
    for (const NamedCommand& each : kCommands) {
        if (each.name == first && first != "completion") return {each.add(app)};
    }
    for (const NamedCommand& each : kCommands) commands.push_back(each.add(app));
    return commands;
}

/// The parser leaves to the client what it does not know: an option of no command's is a mistake all the
/// same.
Status check_first_word(const CLI::App& command, const CommandLine& before) {
    if (before.empty() || !before.front().starts_with('-')) return {};
    const std::string option = before.front().substr(0, before.front().find('='));
    std::vector<std::string> names;
    for (const CLI::Option* each : command.get_options()) {
        for (const std::string& name : each->get_lnames()) names.push_back("--" + name);
    }
    const std::vector<std::string_view> candidates(names.begin(), names.end());
    return fail("unknown option {}; did you mean {}? See `postern {} --help`", option,
                nearest(option, candidates), command.get_name());
}

int main_with_arguments(std::vector<std::string> words) {
    const auto build = build_identity();
    const auto key = build ? launch_key(words, *build) : std::nullopt;
    // What is behind the first "--" is the client's command line: the parser must not look at it.
    const auto dashes = std::find(words.begin(), words.end(), "--");
    const bool has_dashes = dashes != words.end();
    CommandLine rest(dashes == words.end() ? dashes : dashes + 1, words.end());
    words.erase(dashes, words.end());
    if (!words.empty() && words.front() == "systemd-run") {
        const auto status = run_systemd_run({words.begin() + 1, words.end()},
                                            has_dashes ? std::optional(rest) : std::nullopt);
        if (status) return *status;
    }

    CLI::App app(
        "Launches clients of user space PCI drivers in a sandbox, with a guarded piece of the device.",
        "postern");
    app.require_subcommand(1);
    const std::vector<Command> commands = add_commands(app, words, key);
    add_version_flags(app, "postern " POSTERN_VERSION);
    const auto chosen = [&] {
        return app.get_subcommands().empty() ? nullptr : app.get_subcommands().front();
    };
    const auto launches = [&] {
        return chosen() != nullptr && (chosen()->get_name() == "run" || chosen()->get_name() == "pool");
    };
    try {
        std::reverse(words.begin(), words.end());  // as CLI11 wants a vector
        app.parse(words);
    } catch (const CLI::Success& help) {
        return app.exit(help);
    } catch (const CLI::ParseError& error) {
        const std::string name = chosen() != nullptr ? "postern " + chosen()->get_name() : "postern";
        return report(Error{fmt::format("{}; see `{} --help`", error.what(), name), 0},
                      launches() ? kLaunchFailed : 2);
    }
    const CommandLine before = chosen()->remaining();  // `postern run CMD` without "--"
    if (const auto known = check_first_word(*chosen(), before); !known)
        return report(known.error(), launches() ? kLaunchFailed : 2);
    // What stands behind the command is its own, a "--" too.
    if (!before.empty() && has_dashes) rest.insert(rest.begin(), "--");
    rest.insert(rest.begin(), before.begin(), before.end());
    const auto& all = app.get_subcommands([](CLI::App*) { return true; });
    const auto index = static_cast<size_t>(std::find(all.begin(), all.end(), chosen()) - all.begin());
    return commands.at(index)(rest);
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    postern::hold_standard_fds();
    try {
        return postern::main_with_arguments({argv + std::min(argc, 1), argv + argc});
    } catch (const std::exception& error) {
        // The project's own code returns errors; this is the standard library running out of memory.
        return postern::report(postern::Error{error.what(), 0}, postern::kLaunchFailed);
    }
}
