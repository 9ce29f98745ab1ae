// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker-core/result.h"

namespace postern::cost {

/// What one call costs in one state of the machine, and how much more than in another state it may.
struct CostRow {
    std::string call;
    std::string state;
    long instructions = 0;
    std::string against;          ///< state of the same call to compare with; empty: none
    std::optional<long> more;     ///< instructions more than there
    std::optional<long> at_most;  ///< what is expected of `more`

    [[nodiscard]] bool is_missed() const { return more && at_most && *more > *at_most; }
};

class CostTable {
  public:
    void add(const std::string& call, const std::string& state, long instructions);
    /// Error: that call has no row of the state `against` yet.
    [[nodiscard]] Status add(const std::string& call, const std::string& state, long instructions,
                             const std::string& against, std::optional<long> at_most = std::nullopt);

    /// In Markdown, so that it can go into a document as it is.
    [[nodiscard]] std::string text() const;
    [[nodiscard]] std::string json(const std::string& kernel) const;
    /// A line for each expectation that is not met.
    [[nodiscard]] std::vector<std::string> missed() const;

  private:
    std::vector<CostRow> rows_;
};

}  // namespace postern::cost
