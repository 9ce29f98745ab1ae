// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launcher/launch_key.h"
#include "launcher/report.h"

// The subcommands of `postern`. Each add_*_command() describes one to the command line parser and returns
// what runs when it was chosen: a function that gives the exit status. Errors are printed there, once, by
// report().

namespace postern {

/// What stands behind "--" (or behind the last option) on the command line.
using CommandLine = std::vector<std::string>;
using Command = std::function<int(const CommandLine& rest)>;

/// `key`: what the launch is to be kept for, if it can be.
[[nodiscard]] Command add_run_command(CLI::App& app, const std::optional<LaunchKey>& key = std::nullopt);
[[nodiscard]] Command add_bwrap_command(CLI::App& app);
[[nodiscard]] Command add_pool_command(CLI::App& app);
[[nodiscard]] Command add_systemd_run_command(CLI::App& app);
[[nodiscard]] Command add_check_command(CLI::App& app);
[[nodiscard]] Command add_devices_command(CLI::App& app);
[[nodiscard]] Command add_bind_command(CLI::App& app);
[[nodiscard]] Command add_unbind_command(CLI::App& app);
[[nodiscard]] Command add_profile_command(CLI::App& app);
[[nodiscard]] Command add_broker_command(CLI::App& app);
[[nodiscard]] Command add_bench_command(CLI::App& app);
[[nodiscard]] Command add_ps_command(CLI::App& app);
[[nodiscard]] Command add_revoke_command(CLI::App& app);
[[nodiscard]] Command add_monitor_command(CLI::App& app);
[[nodiscard]] Command add_guard_command(CLI::App& app);
[[nodiscard]] Command add_cdi_command(CLI::App& app);
/// Tells of all commands of `app`, those that are added later, too.
[[nodiscard]] Command add_completion_command(CLI::App& app);

/// `postern systemd-run`, whose options the parser cannot tell apart: `words` are those before "--", `rest`
/// those behind it, if there is one. Becomes systemd-run; nullopt: the parser is to tell of it.
[[nodiscard]] std::optional<int> run_systemd_run(const std::vector<std::string>& words,
                                                 const std::optional<CommandLine>& rest);

}  // namespace postern
