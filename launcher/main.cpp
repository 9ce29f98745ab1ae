// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "launcher/command_tree.h"
#include "launcher/commands.h"

namespace postern {
namespace {

int main_with_arguments(std::vector<std::string> words) {
    // What is behind the first "--" is the client's command line: the parser must not look at it.
    const auto dashes = std::find(words.begin(), words.end(), "--");
    CommandLine rest(dashes == words.end() ? dashes : dashes + 1, words.end());
    words.erase(dashes, words.end());

    CLI::App app(
        "Launches clients of user space PCI drivers in a sandbox, with a guarded piece of the device.",
        "postern");
    app.require_subcommand(1);
    const std::vector<Command> commands{
        add_run_command(app),       add_pool_command(app),    add_check_command(app),
        add_devices_command(app),   add_bind_command(app),    add_unbind_command(app),
        add_profile_command(app),   add_bench_command(app),   add_ps_command(app),
        add_revoke_command(app),    add_monitor_command(app), add_guard_command(app),
        add_completion_command(app)};
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
    rest.insert(rest.begin(), before.begin(), before.end());
    const auto& all = app.get_subcommands([](CLI::App*) { return true; });
    const auto index = static_cast<size_t>(std::find(all.begin(), all.end(), chosen()) - all.begin());
    return commands.at(index)(rest);
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    try {
        return postern::main_with_arguments({argv + 1, argv + argc});
    } catch (const std::exception& error) {
        // The project's own code returns errors; this is the standard library running out of memory.
        return postern::report(postern::Error{error.what(), 0}, postern::kLaunchFailed);
    }
}
