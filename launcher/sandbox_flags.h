// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/profile.h"
#include "broker-core/result.h"

namespace postern {

/// What some flags say of those behind them, as bubblewrap has it.
struct PendingFlags {
    std::optional<std::string> mode;  ///< of the next that makes a file or folder, octal
    std::optional<std::string> size;  ///< of the next --tmpfs
    std::vector<std::string> layers;  ///< of the next overlay, from the bottom up
};

/// The sandbox flags of `postern run` and `postern pool`, with bubblewrap's names where it has them. They
/// change what the profile says, in the order given.
class SandboxFlags {
  public:
    void add_to(CLI::App& command);
    [[nodiscard]] Status apply(SandboxProfile& sandbox) const;

  private:
    using Change = std::function<Status(SandboxProfile&, PendingFlags&)>;
    std::vector<Change> changes_;
};

}  // namespace postern
