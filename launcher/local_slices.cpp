// SPDX-License-Identifier: Apache-2.0
#include "launcher/local_slices.h"

#include <utility>

#include "launcher/job_environment.h"

namespace postern {

Result<std::unique_ptr<SliceSource>> LocalSlices::open(const Profile& profile, const std::string& device,
                                                       GrantedFiles files, Supervisor& supervisor, bool quiet,
                                                       const std::string& backend) {
    auto slices = std::unique_ptr<LocalSlices>(new LocalSlices(profile, device, supervisor, quiet));
    POSTERN_TRY(slices->own(std::move(files), backend));
    return slices;
}

Status LocalSlices::own(GrantedFiles files, const std::string& backend) {
    POSTERN_ASSIGN(LocalBroker broker, LocalBroker::open(profile_, device_, std::move(files), backend));
    broker_.emplace(std::move(broker));
    refusals_.emplace(supervisor_, RefusalReport::Clients::Many);
    if (!quiet_) broker_->tell(*refusals_);
    return {};
}

tl::expected<std::optional<SliceSource::Started>, SliceSource::Refused> LocalSlices::start(SandboxSpec spec) {
    const auto slice = broker_ ? numbers_.take() : std::nullopt;
    if (!slice) return std::nullopt;
    set_variable(spec.env, "POSTERN_SLICE", std::to_string(*slice));
    auto client = broker_->start(*slice, std::move(spec));
    if (client) {
        const Cgroup* cgroup = broker_->place_of(*slice).cgroup;
        return Started{*slice, std::move(*client), cgroup != nullptr ? cgroup->fd() : -1};
    }
    LaunchError why = std::move(client.error());
    // What setup has begun ends here, too.
    if (auto cleaned = broker_->end(*slice); !cleaned && why.exit_status != 125)
        why = {std::move(cleaned.error()), 125};
    if (why.exit_status == 125) {
        numbers_.retire(*slice);
    } else {
        numbers_.give_back(*slice);
    }
    return tl::unexpected(Refused{std::move(why), slice});
}

Status LocalSlices::end(unsigned slice) {
    if (auto cleaned = broker_->end(slice); !cleaned) {
        // Whoever came next would find what this client has left.
        numbers_.retire(slice);
        return propagate(std::move(cleaned), fmt::format("slice {}", slice));
    }
    numbers_.give_back(slice);
    return {};
}

bool LocalSlices::get_ahead(const SandboxSpec& spec) {
    for (const unsigned slice : numbers_.taken()) {
        if (broker_->prepare(slice, spec)) return true;
    }
    return false;
}

Status LocalSlices::reset() {
    broker_->forget_prepared();
    return broker_->session().reset();
}

Status LocalSlices::close() {
    refusals_.reset();
    Status closed = broker_ ? broker_->close() : Status();
    broker_.reset();
    return closed;
}

}  // namespace postern
