// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "broker-core/result.h"
#include "launcher/bench_report.h"
#include "launcher/sandbox_spec.h"
#include "launcher/slice_source.h"
#include "launcher/supervisor.h"

namespace postern {

struct PoolBenchOptions {
    std::string device;  ///< empty: only the side without one
    std::string profile = "virtio-blk-queue";
    unsigned rounds = 3;
    unsigned jobs = 200;  ///< of each side in one round, the first of which find nothing prepared
    std::chrono::milliseconds job = std::chrono::milliseconds(100);
};

/// Runs `jobs` jobs of sleep(1) for `job` through a JobPool with `places` places, which closes the source.
/// Seconds from the first start to the last end.
[[nodiscard]] Result<double> time_pool(Supervisor& supervisor, SliceSource& source, const SandboxSpec& spec,
                                       unsigned places, unsigned jobs, std::chrono::milliseconds job);

/// Per cent of the places' time in which no job slept.
[[nodiscard]] double time_lost(double seconds, unsigned places, unsigned jobs, std::chrono::milliseconds job);

/// The same list of jobs on the slices of the device and in as many sandboxes without one, in alternation.
/// The figures: the share of time that is lost between jobs, what that is for each job, and, as a measure of
/// the machine, what one launch of /bin/true takes without a device. `told` hears of each round; its error
/// ends them.
[[nodiscard]] Result<std::vector<BenchResult>> measure_pool(const PoolBenchOptions& options,
                                                            const std::function<Status(unsigned)>& told);

}  // namespace postern
