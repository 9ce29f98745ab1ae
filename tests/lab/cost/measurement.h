// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"
#include "tests/lab/cost/cost_table.h"

namespace postern::cost {

/// Measures all that docs/guard.md, "What it costs", shows, on the device at `bdf`. Nothing else on the
/// machine may use the guard, or any other BPF LSM program.
[[nodiscard]] Result<CostTable> measure(const std::string& bdf);

}  // namespace postern::cost
