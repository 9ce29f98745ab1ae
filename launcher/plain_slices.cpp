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
    set_variable(spec.env, "POSTERN_SLICE", std::to_string(*slice));
    auto next = next_.extract(*slice);
    auto cgroup = next ? Result<std::optional<Cgroup>>(std::move(next.mapped().cgroup)) : make_cgroup(*slice);
    if (!cgroup) return refused({std::move(cgroup.error()), 125});
    if (*cgroup) {
        spec.cgroup_fd = (*cgroup)->fd();
        cgroups_.emplace(*slice, std::move(**cgroup));
    }
    auto started = next ? next.mapped().sandbox.start(spec) : std::nullopt;
    auto client = started ? std::move(*started) : start_sandbox(spec);
    if (!client) return refused(std::move(client.error()));
    return Started{*slice, std::move(*client), spec.cgroup_fd};
}

Result<std::optional<Cgroup>> PlainSlices::make_cgroup(unsigned slice) {
    if (limits_.empty()) return std::optional<Cgroup>();
    POSTERN_ASSIGN(Cgroup cgroup,
                   Cgroup::create(fmt::format("{}-{}.{}", ::getpid(), slice, cgroups_made_++), limits_));
    return std::optional<Cgroup>(std::move(cgroup));
}

bool PlainSlices::get_ahead(const SandboxSpec& spec) {
    if (!can_prepare_ || !PreparedSandbox::is_possible(spec)) return false;
    for (const unsigned slice : numbers_.taken()) {
        if (next_.contains(slice)) continue;
        // What fails is start()'s to do then, and to tell.
        can_prepare_ = false;
        auto cgroup = make_cgroup(slice);
        if (!cgroup) return false;
        SandboxSpec prepared = spec;
        if (*cgroup) prepared.cgroup_fd = (*cgroup)->fd();
        auto sandbox = PreparedSandbox::make(std::move(prepared));
        if (!sandbox) return false;
        next_.emplace(slice, Next{std::move(*cgroup), std::move(*sandbox)});
        can_prepare_ = true;
        return true;
    }
    return false;
}

Status PlainSlices::end(unsigned slice) {
    cgroups_.erase(slice);
    numbers_.give_back(slice);
    return {};
}

Status PlainSlices::close() {
    next_.clear();
    cgroups_.clear();
    return {};
}

}  // namespace postern
