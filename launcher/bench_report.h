// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/json_reader.h"

namespace postern {

/// One way of running the same work, and what each round of it gave.
struct BenchSide {
    std::string name;   ///< short, for JSON
    std::string label;  ///< for people
    std::vector<double> values;
};

struct BenchResult {
    std::string title;
    std::string unit;
    std::vector<BenchSide> sides;  ///< the first is what the others are compared with
};

[[nodiscard]] double median(std::vector<double> values);

/// Pure renderings of the same figures: medians, lowest and highest round, ratio to the first side.
[[nodiscard]] std::string bench_table(const BenchResult& result);
[[nodiscard]] Json bench_json(const BenchResult& result);
/// A bar for each side, with whiskers from its lowest to its highest round.
[[nodiscard]] std::string bench_svg(const BenchResult& result);

}  // namespace postern
