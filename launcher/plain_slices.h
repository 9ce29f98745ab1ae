// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/result.h"
#include "launcher/cgroup.h"
#include "launcher/prepared_sandbox.h"
#include "launcher/slice_numbers.h"
#include "launcher/slice_source.h"

namespace postern {

/// Sandboxes without a device: nothing but their number is shared, so there is nothing to clean.
class PlainSlices : public SliceSource {
  public:
    /// `cgroup_limits`: as Cgroup::create() takes them; without any no cgroup is made.
    PlainSlices(unsigned count, std::vector<std::pair<std::string, std::string>> cgroup_limits)
        : numbers_(count), limits_(std::move(cgroup_limits)) {}

    [[nodiscard]] tl::expected<std::optional<Started>, Refused> start(SandboxSpec spec) override;
    [[nodiscard]] Status end(unsigned slice) override;
    [[nodiscard]] bool get_ahead(const SandboxSpec& spec) override;
    [[nodiscard]] unsigned in_service() const override { return numbers_.in_service(); }
    [[nodiscard]] Status reset() override { return {}; }
    [[nodiscard]] Status close() override;

  private:
    SliceNumbers numbers_;
    std::vector<std::pair<std::string, std::string>> limits_;
    struct Next {
        std::optional<Cgroup> cgroup;
        PreparedSandbox sandbox;  ///< last: it ends before its cgroup
    };
    [[nodiscard]] Result<std::optional<Cgroup>> make_cgroup(unsigned slice);

    std::map<unsigned, Cgroup> cgroups_;
    unsigned cgroups_made_ = 0;
    std::map<unsigned, Next> next_;  ///< by slice
    bool can_prepare_ = true;
};

}  // namespace postern
