// SPDX-License-Identifier: Apache-2.0
#include "launcher/plain_slices.h"

#include <fmt/format.h>
#include <unistd.h>

#include "launcher/job_environment.h"

namespace postern {

tl::expected<std::optional<SliceSource::Started>, SliceSource::Refused> PlainSlices::start(SandboxSpec spec) {
    const auto slice = numbers_.take();
    if (!slice) return std::nullopt;
    const auto refused = [&](LaunchError why) {
        cgroups_.erase(*slice);
        if (why.exit_status == 125) {
            numbers_.retire(*slice);
        } else {
            numbers_.give_back(*slice);
        }
        return tl::unexpected(Refused{std::move(why), slice});
    };
    if (!limits_.empty()) {
        auto cgroup = Cgroup::create(fmt::format("{}-{}", ::getpid(), *slice), limits_);
        if (!cgroup) return refused({std::move(cgroup.error()), 125});
        spec.cgroup_fd = cgroup->fd();
        cgroups_.emplace(*slice, std::move(*cgroup));
    }
    set_variable(spec.env, "POSTERN_SLICE", std::to_string(*slice));
    auto client = start_sandbox(spec);
    if (!client) return refused(std::move(client.error()));
    return Started{*slice, std::move(*client), spec.cgroup_fd};
}

Status PlainSlices::end(unsigned slice) {
    cgroups_.erase(slice);
    numbers_.give_back(slice);
    return {};
}

Status PlainSlices::close() {
    cgroups_.clear();
    return {};
}

}  // namespace postern
