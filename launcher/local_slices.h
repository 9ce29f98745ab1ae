// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "broker-core/granted_files.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "launcher/launch.h"
#include "launcher/refusal_report.h"
#include "launcher/slice_numbers.h"
#include "launcher/slice_source.h"
#include "launcher/supervisor.h"

namespace postern {

/// The slices of a device, or of a profile's files, that this process is the broker of.
class LocalSlices : public SliceSource {
  public:
    /// Owns the device by the backend (see LocalBroker::open()), unless `device` is empty. What the guard
    /// refuses is said on stderr unless `quiet`; `supervisor` is borrowed for that.
    [[nodiscard]] static Result<std::unique_ptr<SliceSource>> open(const Profile& profile,
                                                                   const std::string& device,
                                                                   GrantedFiles files, Supervisor& supervisor,
                                                                   bool quiet,
                                                                   const std::string& backend = {});

    [[nodiscard]] tl::expected<std::optional<Started>, Refused> start(SandboxSpec spec) override;
    [[nodiscard]] Status end(unsigned slice) override;
    [[nodiscard]] bool get_ahead(const SandboxSpec& spec) override;
    [[nodiscard]] unsigned in_service() const override { return numbers_.in_service(); }
    [[nodiscard]] Status reset() override;
    [[nodiscard]] Status close() override;

  private:
    LocalSlices(const Profile& profile, std::string device, Supervisor& supervisor, bool quiet)
        : profile_(profile),
          device_(std::move(device)),
          supervisor_(supervisor),
          quiet_(quiet),
          numbers_(profile.slices) {}
    [[nodiscard]] Status own(GrantedFiles files, const std::string& backend);

    Profile profile_;
    std::string device_;
    Supervisor& supervisor_;
    bool quiet_;
    SliceNumbers numbers_;
    std::optional<LocalBroker> broker_;
    std::optional<RefusalReport> refusals_;  ///< last: it listens to the broker's guard
};

}  // namespace postern
