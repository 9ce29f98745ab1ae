// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "broker-core/result.h"
#include "launcher/bench_report.h"

namespace postern {

struct BrokerBenchOptions {
    std::string device;
    std::string profile = "virtio-blk-queue";
    unsigned rounds = 5;
    unsigned grants = 20;  ///< of each side, one at a time and in every slice at once, in one round
    unsigned jobs = 40;    ///< of 100 ms, of each side in one round; 0: none
};

/// Grants with a client of true(1) on a slice of the device: from a broker in the same process, from `postern
/// broker` with a holder, and for comparison the same sandbox without a device; in alternation. The figures:
/// from the request to the running client, the whole life of a grant, grants per second with a client in
/// every slice, and the share of a pool's time that is lost between jobs of 100 ms. `told` hears of each
/// round; its error ends them.
[[nodiscard]] Result<std::vector<BenchResult>> measure_grants(const BrokerBenchOptions& options,
                                                              const std::function<Status(unsigned)>& told);

}  // namespace postern
