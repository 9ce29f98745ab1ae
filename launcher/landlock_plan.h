// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker-core/landlock_rules.h"
#include "broker-core/result.h"

namespace postern {

/// LandlockRules in the kernel's own terms, with nothing that it does not know.
struct LandlockPlan {
    struct Path {
        std::string path;
        std::uint64_t access = 0;
    };
    struct Port {
        std::uint64_t port = 0;
        std::uint64_t access = 0;
    };
    std::uint64_t handled_fs = 0;
    std::uint64_t handled_net = 0;
    std::uint64_t scoped = 0;
    std::vector<Path> paths;
    std::vector<Port> ports;

    [[nodiscard]] bool is_empty() const { return handled_fs == 0 && handled_net == 0 && scoped == 0; }
};

/// `abi` is Landlock's version in the running kernel, 0 or less where it has none. What that lacks is left
/// out; an error names it if it is required. Pure.
[[nodiscard]] Result<LandlockPlan> make_landlock_plan(const LandlockRules& rules, int abi);

/// What make_landlock_plan() leaves out of rules that were asked for, one sentence each. Pure.
[[nodiscard]] std::vector<std::string> landlock_gaps(const LandlockRules& rules, int abi);

/// For --dry-run.
[[nodiscard]] std::string describe(const LandlockRules& rules);

}  // namespace postern
