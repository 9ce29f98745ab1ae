// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <vector>

#include "broker-core/profile.h"
#include "broker-core/result.h"

namespace postern {

/// The sandbox flags of `postern run` and `postern pool`, with bubblewrap's names where it has them. They
/// change what the profile says, in the order given.
class SandboxFlags {
  public:
    void add_to(CLI::App& command);
    [[nodiscard]] Status apply(SandboxProfile& sandbox) const;

  private:
    using Change = std::function<Status(SandboxProfile&)>;
    std::vector<Change> changes_;
};

}  // namespace postern
