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
    std::string name = "bench";  ///< of the chart's file
    std::string title;
    std::string unit;
    int decimals = 0;              ///< that are worth showing
    std::vector<BenchSide> sides;  ///< the first is what the others are compared with
};

[[nodiscard]] double median(std::vector<double> values);

/// Pure renderings of the same figures: medians, lowest and highest round, ratio to the first side.
[[nodiscard]] std::string bench_table(const BenchResult& result);
[[nodiscard]] Json bench_json(const BenchResult& result);
/// A bar for each side, with whiskers from its lowest to its highest round.
[[nodiscard]] std::string bench_svg(const BenchResult& result);

/// Writes bench.json with `document` and NAME.svg with a chart of each result into `folder`, which is made.
Status write_bench_report(const std::string& folder, const Json& document,
                          const std::vector<BenchResult>& results);

}  // namespace postern
