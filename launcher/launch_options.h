// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "broker-core/json_reader.h"
#include "broker-core/profile_reader.h"
#include "broker-core/result.h"
#include "launcher/brokered.h"
#include "launcher/sandbox_flags.h"

namespace postern {

/// What `postern run` and `postern pool` are told alike.
struct LaunchOptions {
    std::string device;
    std::string profile;
    bool dry_run = false;
    bool json = false;
    bool quiet = false;
    std::string broker = "auto";
    std::string backend;  ///< empty: default_backend()
    SandboxFlags sandbox;

    void add_to(CLI::App& command);

    /// The profile asked for, or the built-in default, with the sandbox flags applied and the command's
    /// presence checked. `read`, if given, gets the files that it was read from.
    [[nodiscard]] Result<Profile> load(std::vector<ReadFile>* read = nullptr) const;
    /// The broker that is to be asked for the device, if there is one (find_broker()); then the profile is
    /// the one it has the device under, unless one is named.
    [[nodiscard]] Result<std::optional<BrokerPlace>> choose_broker();
    /// What is to be said on stderr of what the profile weakens: nothing with --quiet.
    [[nodiscard]] std::vector<std::string> spoken_weakenings(const Profile& profile) const;
    /// Says it.
    void print_weakenings(const Profile& profile) const;
};

/// The plan as the sysfs forecast gives it, or null without a device.
[[nodiscard]] Result<Json> forecast_plan(const Profile& profile, const std::string& device);

}  // namespace postern
