// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/brokered.h"
#include "launcher/slice_source.h"

namespace postern {

/// Slices of a device that a broker holds. A grant is a process's, and ends with it; so for each client there
/// is one more process of postern's, which asks for the grant, is moved into its cgroup, and launches the
/// client from there.
class BrokeredSlices : public SliceSource {
  public:
    [[nodiscard]] static Result<std::unique_ptr<SliceSource>> open(const Profile& profile, std::string device,
                                                                   BrokerPlace broker);

    [[nodiscard]] tl::expected<std::optional<Started>, Refused> start(SandboxSpec spec) override;
    [[nodiscard]] Status end(unsigned slice) override;
    [[nodiscard]] unsigned in_service() const override { return profile_.slices; }
    /// A timer: the broker tells nobody that a slice has become free but those who wait for it.
    [[nodiscard]] int freed_fd() const override { return timer_.get(); }
    [[nodiscard]] Status reset() override;
    [[nodiscard]] Status close() override { return {}; }

  private:
    BrokeredSlices(const Profile& profile, std::string device, BrokerPlace broker, UniqueFd timer)
        : profile_(profile),
          device_(std::move(device)),
          broker_(std::move(broker)),
          timer_(std::move(timer)) {}

    Profile profile_;
    std::string device_;
    BrokerPlace broker_;
    UniqueFd timer_;
    std::map<unsigned, UniqueFd> cgroups_;  ///< of the clients that run, by slice
};

}  // namespace postern
