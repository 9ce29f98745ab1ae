// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "launcher/launch_options.h"

namespace postern {

/// What `postern pool` is told.
struct PoolOptions : LaunchOptions {
    std::string commands;    ///< file with jobs, "-": stdin; empty: none
    std::uint64_t jobs = 0;  ///< 0: as many as there are places
    std::optional<std::chrono::milliseconds> timeout;
    std::uint64_t retries = 0;
    std::string reset = "slice";
    std::string log_folder;
    std::string junit;
    std::string summary;
    bool fail_fast = false;
    std::optional<std::string> ctest_resources;  ///< file, "-": stdout
    bool job_arguments = false;                  ///< the command line has ":::"

    void add_to(CLI::App& command);

    [[nodiscard]] bool has_jobs() const { return !commands.empty() || job_arguments; }
    /// What goes together and what does not. `words`: the command line behind the options.
    [[nodiscard]] Status check(const std::vector<std::string>& words) const;
    /// How many jobs run side by side.
    [[nodiscard]] unsigned at_once(const Profile& profile) const;

  private:
    std::vector<CLI::Option*> for_jobs_;  ///< options that make sense with a list of jobs alone
};

}  // namespace postern
