// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "broker-core/pci.h"
#include "broker-core/plan.h"
#include "launcher/exec_target.h"
#include "launcher/refusal_report.h"

namespace postern {

Result<LocalBroker> LocalBroker::open(const Profile& profile, const std::string& device) {
    POSTERN_ASSIGN(const std::string bdf, parse_bdf(device));
    // The cheap refusals first, those about the machine before those about rights.
    POSTERN_ASSIGN(const PciDevice pci, read_pci_device(bdf));
    POSTERN_ASSIGN(const DevicePlan forecast, plan_device(profile, forecast_device_info(pci)));
    if (::geteuid() != 0) {
        return fail("device {}: owning a device and loading its guard needs root; run postern with sudo",
                    bdf);
    }
    POSTERN_TRY(check_ownable(pci));
    if (auto supported = guard_supported(); !supported)
        return propagate(std::move(supported), "device " + bdf);
    POSTERN_ASSIGN(DeviceSession session, DeviceSession::open(profile, bdf));
    auto guard = Guard::acquire();
    if (!guard) {
        (void)session.close();
        return propagate(std::move(guard), "device " + bdf);
    }
    const auto& ioctls = profile.device->ioctls;
    const auto ruled =
        std::find_if(ioctls.begin(), ioctls.end(), [](const IoctlRule& each) { return !each.args.empty(); });
    if (ruled != ioctls.end() && !guard->can_rule_arguments()) {
        (void)session.close();
        return fail("profile {}: device.ioctls: {}: {}", profile.name, ruled->name, kNoSealing);
    }
    return LocalBroker(std::move(*guard), std::move(session), profile);
}

Result<Grant> LocalBroker::prepare(unsigned slice, SandboxSpec& spec) {
    POSTERN_ASSIGN(Cgroup cgroup,
                   Cgroup::create(fmt::format("{}-{}", ::getpid(), slice), cgroup_limits(profile_)));
    POSTERN_ASSIGN(const unsigned level, cgroup.level());
    const SandboxIdentity identity{cgroup.id(), level};
    POSTERN_TRY(guard_.add_sandbox(identity.cgroup_id, identity.cgroup_level));
    spec.cgroup_fd = cgroup.fd();
    cgroups_.erase(slice);
    cgroups_.emplace(slice, std::move(cgroup));
    POSTERN_ASSIGN(Grant grant, session_.grant(slice, guard_, identity));
    if (report_ != nullptr) report_->begin(guard_, slice, identity.cgroup_id);
    return grant;
}

tl::expected<RunningClient, LaunchError> LocalBroker::start(unsigned slice, SandboxSpec spec) {
    auto grant = prepare(slice, spec);
    if (!grant) {
        cgroups_.erase(slice);
        return tl::unexpected(
            LaunchError{std::move(grant.error()).within(fmt::format("slice {}", slice)), 125});
    }
    for (const NamedFd& each : grant->fds) spec.fds.push_back({each.fd.get(), each.name});
    auto client = start_sandbox(spec);
    if (client && report_ != nullptr) {
        const auto device = std::find_if(grant->fds.begin(), grant->fds.end(),
                                         [](const NamedFd& each) { return each.name == "device"; });
        if (device != grant->fds.end()) counted_[slice] = {grant->id, std::move(device->fd)};
    }
    // The grant's other fds close here when the client has its own: what the broker keeps is its own set.
    return client;
}

void LocalBroker::report_end(unsigned slice) {
    const auto counted = counted_.find(slice);
    if (counted == counted_.end()) return;
    // Not worth a failure: it is a message.
    report_->end(slice, guard_.denied(counted->second.grant).value_or(0));
    counted_.erase(counted);
}

Status LocalBroker::end(unsigned slice) {
    report_end(slice);
    Status ended = session_.end_slice(slice);
    if (const auto found = cgroups_.find(slice); found != cgroups_.end()) {
        Status removed = guard_.remove_sandbox(found->second.id());
        if (ended) ended = std::move(removed);
        cgroups_.erase(found);
    }
    return ended;
}

Status LocalBroker::close() {
    Status closed = session_.close();
    cgroups_.clear();
    Status released = guard_.release();
    return closed ? released : closed;
}

std::vector<std::pair<std::string, std::string>> cgroup_limits(const Profile& profile) {
    return {profile.sandbox.cgroup.begin(), profile.sandbox.cgroup.end()};
}

tl::expected<void, LaunchError> check_command(const SandboxSpec& spec) {
    if (spec.argv.empty() || spec.argv[0].empty()) {
        return tl::unexpected(LaunchError{Error{"no command: write it behind \"--\"", 0}, 125});
    }
    // With another root the command is looked up inside, by the client itself.
    if (spec.root.kind != Root::Kind::HostReadOnly) return {};
    const char* path = std::getenv("PATH");
    auto target = find_exec_target(spec.argv[0], path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
    if (!target) return tl::unexpected(std::move(target.error()));
    return {};
}

}  // namespace postern
