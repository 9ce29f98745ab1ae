// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <set>
#include <string>

#include "broker-core/result.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {

struct Options {
    bool outside = false;  ///< --expect allowed
    bool json = false;
    bool list = false;
    bool help = false;
    std::set<std::string> only;         ///< names of probes
    std::set<std::string> groups;       ///< empty: all
    std::set<std::string> skip_groups;  ///< "sandbox" and "guard" stand for all groups of the kind
    std::chrono::seconds limit{60};     ///< for one attempt; some search all of /proc and /sys
    std::chrono::milliseconds pause{};  ///< before each
};

[[nodiscard]] Result<Options> parse_options(int argc, char** argv);

/// Those that the options leave; an unknown name or group is an error.
[[nodiscard]] Result<Probes> choose(Probes probes, const Options& options);

extern const char kUsage[];

}  // namespace postern::hostile
