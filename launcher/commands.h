// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launcher/launch_key.h"

// The subcommands of `postern`. Each add_*_command() describes one to the command line parser and returns
// what runs when it was chosen: a function that gives the exit status. Errors are printed there, once, by
// report().

namespace postern {

struct Error;

/// What stands behind "--" (or behind the last option) on the command line.
using CommandLine = std::vector<std::string>;
using Command = std::function<int(const CommandLine& rest)>;

/// `key`: what the launch is to be kept for, if it can be.
[[nodiscard]] Command add_run_command(CLI::App& app, std::optional<LaunchKey> key = std::nullopt);
/// `postern run` as it was compiled before; nullopt: it was not.
[[nodiscard]] std::optional<int> run_kept(const LaunchKey& key);
/// bubblewrap's command line reads its own words: `words` is what stands behind `program`, as its help calls
/// it. For add_bwrap_command() and for a program that is called bwrap.
[[nodiscard]] int run_bwrap(const std::string& program, const std::vector<std::string>& words);
[[nodiscard]] Command add_bwrap_command(CLI::App& app);
[[nodiscard]] Command add_pool_command(CLI::App& app);
[[nodiscard]] Command add_check_command(CLI::App& app);
[[nodiscard]] Command add_devices_command(CLI::App& app);
[[nodiscard]] Command add_bind_command(CLI::App& app);
[[nodiscard]] Command add_unbind_command(CLI::App& app);
[[nodiscard]] Command add_profile_command(CLI::App& app);
[[nodiscard]] Command add_bench_command(CLI::App& app);
[[nodiscard]] Command add_ps_command(CLI::App& app);
[[nodiscard]] Command add_revoke_command(CLI::App& app);
[[nodiscard]] Command add_monitor_command(CLI::App& app);
[[nodiscard]] Command add_guard_command(CLI::App& app);
/// Tells of all commands of `app`, those that are added later, too.
[[nodiscard]] Command add_completion_command(CLI::App& app);

/// Exit status of `postern run` and `pool` where postern itself failed.
inline constexpr int kLaunchFailed = 125;
/// Exit status of the other commands where they failed.
inline constexpr int kFailed = 1;

/// Prints "postern: …" on stderr and returns `status`.
int report(const Error& error, int status);

}  // namespace postern
