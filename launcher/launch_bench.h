// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "broker-core/result.h"
#include "launcher/bench_report.h"

namespace postern {

struct LaunchBenchOptions {
    unsigned rounds = 15;
    unsigned launches = 8;  ///< of each launcher, one at a time and two at a time, in one round
};

struct LaunchBenchResult {
    std::vector<BenchResult> figures;  ///< time of one launch; launches per second, 1 and 2 in flight; memory
    std::vector<std::string> left_out;  ///< launchers that are here but did not make the sandbox, and why
};

/// Runs the same full sandbox of a dynamic true(1) with each launcher of this machine in alternation. `told`
/// hears of each round; its error ends them.
[[nodiscard]] Result<LaunchBenchResult> measure_launches(const LaunchBenchOptions& options,
                                                         const std::function<Status(unsigned)>& told);

}  // namespace postern
