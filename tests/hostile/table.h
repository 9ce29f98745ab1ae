// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "tests/hostile/runner.h"

namespace postern::hostile {

/// How the findings look to a reader: a table by group and the closing line. `colour` with escape sequences.
[[nodiscard]] std::string as_table(std::span<const Finding> findings, const Target& target, bool colour);

/// The same as JSON: { "expect", "device", "probes": [ … ], "summary": { … }, "passed" }.
[[nodiscard]] std::string as_json(std::span<const Finding> findings, const Target& target);

/// Names, groups and what each tries, for --list.
[[nodiscard]] std::string as_list(const Probes& probes);

}  // namespace postern::hostile
