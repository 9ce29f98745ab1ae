// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "launcher/command_tree.h"

namespace postern {

/// An option of systemd-run(1) that is passed on.
struct SystemdRunOption {
    std::string_view name;  ///< "--property"
    char letter = '\0';     ///< 'p'; '\0': it has none
    std::string_view word;  ///< what its word is; empty: it takes none
    std::string_view help;
};

/// Those of systemd 252 to 257. What postern's own options have the name of is among them.
[[nodiscard]] std::span<const SystemdRunOption> systemd_run_options();

/// A command line of `postern systemd-run`, taken apart.
struct SystemdRunRequest {
    std::vector<std::string> systemd;  ///< options of systemd-run, each in one word
    std::vector<std::string> postern;  ///< options of `postern run`
    std::vector<std::string> command;  ///< the client's
    bool is_scope = false;
    bool notify = false;      ///< --notify is among `postern`
    bool has_type = false;    ///< the caller chose the service's type
    bool has_folder = false;  ///< … its working folder, or another machine
    bool expands = false;     ///< … whether systemd expands variables in the command
    bool dry_run = false;
    bool json = false;
};

/// Whose an option is that both have: numbers are postern's, names systemd's (--slice, --uid, --gid);
/// variables are the client's in either form (--setenv NAME VALUE, --setenv NAME[=VALUE], -E); --quiet is
/// said to both.
///
/// `words` are those before "--", `rest` those behind it (nullopt: there is none, and the first word that is
/// no option begins the command). `run_options` are those of `postern run`; `variable` looks up one of the
/// caller's. Error: an option that neither has, one without its word, and what cannot be had together.
[[nodiscard]] Result<SystemdRunRequest> split_systemd_run(
    const std::vector<std::string>& words, const std::optional<std::vector<std::string>>& rest,
    const std::vector<OptionInfo>& run_options,
    const std::function<std::optional<std::string>(const std::string&)>& variable);

/// What a transient unit of it needs to know of the caller.
struct SystemdRunCaller {
    std::string postern;       ///< the program
    std::string folder;        ///< the working folder, which relative paths are relative to
    std::string profile_path;  ///< POSTERN_PROFILE_PATH; empty: it is not set
};

/// The command line of systemd-run.
[[nodiscard]] std::vector<std::string> compose_systemd_run(const SystemdRunRequest& request,
                                                           const SystemdRunCaller& caller);

}  // namespace postern
