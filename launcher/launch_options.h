// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <string>

#include "broker-core/json_reader.h"
#include "broker-core/profile_reader.h"
#include "broker-core/result.h"
#include "launcher/sandbox_flags.h"

namespace postern {

/// What `postern run` and `postern pool` are told alike.
struct LaunchOptions {
    std::string device;
    std::string profile;
    bool dry_run = false;
    bool json = false;
    bool quiet = false;
    SandboxFlags sandbox;

    void add_to(CLI::App& command);

    /// The profile asked for, or the built-in default, with the sandbox flags applied and the command's
    /// presence checked.
    [[nodiscard]] Result<Profile> load() const;
    /// Says on stderr what the profile weakens, unless --quiet.
    void print_weakenings(const Profile& profile) const;
};

/// The plan as the sysfs forecast gives it, or null without a device.
[[nodiscard]] Result<Json> forecast_plan(const Profile& profile, const std::string& device);

}  // namespace postern
