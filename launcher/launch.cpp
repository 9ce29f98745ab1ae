// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "broker-core/guard_support.h"
#include "broker-core/pci.h"
#include "broker-core/plan.h"
#include "launcher/exec_target.h"
#include "launcher/refusal_report.h"

namespace postern {

namespace {

/// Why it cannot be owned; the cheap refusals first, those about the machine before those about rights.
Status check_device(const Profile& profile, const std::string& bdf) {
    POSTERN_ASSIGN(const PciDevice pci, read_pci_device(bdf));
    POSTERN_ASSIGN(const DevicePlan forecast, plan_device(profile, forecast_device_info(pci)));
    if (::geteuid() != 0) {
        return fail("device {}: owning a device and loading its guard needs root; run postern with sudo",
                    bdf);
    }
    return check_ownable(pci);
}

}  // namespace

Result<LocalBroker> LocalBroker::open(const Profile& profile, const std::string& device, GrantedFiles files,
                                      const std::string& backend_named) {
    std::string bdf;
    if (!device.empty()) {
        POSTERN_ASSIGN(bdf, parse_bdf(device));
        POSTERN_TRY(check_device(profile, bdf));
        POSTERN_TRY(check_without_peers(profile));
    } else if (::geteuid() != 0) {
        return fail("profile {}: files: loading their guard needs root; run postern with sudo", profile.name);
    }
    POSTERN_TRY(check_rules_hold(profile, has_mseal()));
    const std::string context = bdf.empty() ? "profile " + profile.name : "device " + bdf;
    if (auto supported = guard_supported(); !supported) return propagate(std::move(supported), context);
    std::optional<DeviceSession> session;
    if (!bdf.empty()) {
        POSTERN_ASSIGN(const Backend backend,
                       backend_named.empty() ? default_backend() : parse_backend(backend_named));
        POSTERN_ASSIGN(DeviceSession opened, DeviceSession::open(profile, bdf, backend));
        session.emplace(std::move(opened));
    }
    auto guard = Guard::acquire();
    if (!guard) {
        if (session) (void)session->close();
        return propagate(std::move(guard), context);
    }
    // Again: there may be an mseal(2) whose mark on a mapping the guard does not find.
    if (auto rules = check_rules_hold(profile, guard->can_rule_arguments()); !rules) {
        if (session) (void)session->close();
        return propagate(std::move(rules));
    }
    return LocalBroker(std::move(*guard), std::move(session), std::move(files), profile);
}

/// For a client that comes now, or for the one after the client that is there.
Result<LocalBroker::Birthplace> LocalBroker::make_place(unsigned slice, When when) {
    // Two of a slice may be there at once.
    POSTERN_ASSIGN(Cgroup cgroup, Cgroup::create(fmt::format("{}-{}.{}", ::getpid(), slice, places_++),
                                                 cgroup_limits(profile_)));
    POSTERN_ASSIGN(const unsigned level, cgroup.level());
    const SandboxIdentity identity{cgroup.id(), level};
    POSTERN_TRY(guard_.add_sandbox(identity.cgroup_id, identity.cgroup_level));
    Birthplace place{std::move(cgroup), begin_grant(slice)};
    if (auto filled = fill(place.grant, identity, when); !filled) {
        leave(std::move(place));
        return propagate(std::move(filled));
    }
    return place;
}

Status LocalBroker::fill(Grant& grant, const SandboxIdentity& identity, When when) {
    if (session_) {
        POSTERN_TRY(when == When::Now ? session_->add_to(grant, guard_, identity)
                                      : session_->add_next_to(grant, guard_, identity));
    }
    POSTERN_TRY(files_.add_to(grant, guard_, identity));
    POSTERN_TRY(guard_.forget_refusals(grant.id));
    return finish_grant(grant);
}

/// One that no client came to live in: the caller's own files are as they were, too.
void LocalBroker::leave(Birthplace place) {
    (void)guard_.forget(place.grant.id);
    left_.push_back(std::move(place.cgroup));
}

bool LocalBroker::prepare(unsigned slice, const SandboxSpec& spec) {
    if (!left_.empty()) {
        // Told by close(), where it is tried again.
        (void)remove_left();
        return true;
    }
    // Files of the caller's have one policy at a time.
    if (!session_ || !profile_.files.empty() || done_.contains(slice) || !PreparedSandbox::is_possible(spec))
        return false;
    const Stage stage = get_ahead(slice, spec);
    // What cannot be had is not tried over and over.
    if (stage != Stage::More) done_.insert(slice);
    return stage != Stage::Failed;
}

/// In pieces, for whoever has more urgent things to do in between.
LocalBroker::Stage LocalBroker::get_ahead(unsigned slice, const SandboxSpec& spec) {
    if (!session_->is_prepared(slice)) return session_->prepare_slice(slice) ? Stage::More : Stage::Failed;
    const auto next = next_.find(slice);
    if (next == next_.end()) {
        auto place = make_place(slice, When::Next);
        if (!place) return Stage::Failed;
        next_.emplace(slice, Next{std::move(*place), std::nullopt});
        return Stage::More;
    }
    const Birthplace& place = next->second.place;
    SandboxSpec at_place = spec;
    at_place.cgroup_fd = place.cgroup.fd();
    for (const NamedFd& each : place.grant.fds) at_place.fds.push_back({each.fd.get(), each.name});
    auto sandbox = PreparedSandbox::make(std::move(at_place));
    if (!sandbox) return Stage::Failed;
    next->second.sandbox.emplace(std::move(*sandbox));
    return Stage::Complete;
}

void LocalBroker::forget_prepared() {
    std::vector<Birthplace> places;
    places.reserve(next_.size());
    for (auto& [slice, next] : next_) places.push_back(std::move(next.place));
    // The sandboxes end here, and only then what they have is nothing any more.
    next_.clear();
    done_.clear();
    for (Birthplace& place : places) leave(std::move(place));
}

tl::expected<RunningClient, LaunchError> LocalBroker::start(unsigned slice, SandboxSpec spec) {
    done_.erase(slice);
    std::optional<PreparedSandbox> sandbox;
    std::optional<Birthplace> place;
    if (auto next = next_.extract(slice); next) {
        if (next.mapped().sandbox) sandbox.emplace(std::move(*next.mapped().sandbox));
        place.emplace(std::move(next.mapped().place));
    }
    const auto complete = [&]() -> Status {
        if (session_) POSTERN_TRY(session_->begin_slice(slice));
        if (place) return {};
        POSTERN_ASSIGN(Birthplace made, make_place(slice, When::Now));
        place.emplace(std::move(made));
        return {};
    };
    auto client = [&]() -> tl::expected<RunningClient, LaunchError> {
        if (Status done = complete(); !done) {
            return tl::unexpected(
                LaunchError{std::move(done.error()).within(fmt::format("slice {}", slice)), 125});
        }
        if (report_ != nullptr) report_->begin(guard_, slice, place->cgroup.id());
        spec.cgroup_fd = place->cgroup.fd();
        for (const NamedFd& each : place->grant.fds) spec.fds.push_back({each.fd.get(), each.name});
        auto started = sandbox ? sandbox->start(spec) : std::nullopt;
        return started ? std::move(*started) : start_sandbox(spec);
    }();
    if (!client) {
        sandbox.reset();
        if (place) leave(std::move(*place));
        return client;
    }
    cgroups_.erase(slice);
    cgroups_.emplace(slice, std::move(place->cgroup));
    Kept& kept = kept_[slice];
    kept = {place->grant.id, {}};
    for (NamedFd& each : place->grant.fds) {
        // Those that may be guarded, which says how often they were refused something.
        if (each.name == "device" || each.name.starts_with("file.") || each.name.starts_with("window."))
            kept.files.push_back(std::move(each.fd));
    }
    // The grant's other fds close here when the client has its own: what the broker keeps is its own set.
    return client;
}

LocalBroker::Place LocalBroker::place_of(unsigned slice) const {
    const auto kept = kept_.find(slice);
    const auto cgroup = cgroups_.find(slice);
    return {kept != kept_.end() ? kept->second.grant : "",
            cgroup != cgroups_.end() ? &cgroup->second : nullptr};
}

void LocalBroker::report_end(unsigned slice) {
    const auto kept = kept_.find(slice);
    if (kept == kept_.end()) return;
    // Not worth a failure: it is a message.
    if (report_ != nullptr) report_->end(slice, guard_.denied(kept->second.grant).value_or(0));
    kept_.erase(kept);
}

Status LocalBroker::end(unsigned slice) {
    const std::string grant = place_of(slice).grant;
    report_end(slice);
    // Nobody is in its sandbox any more, so nobody can have anything of it mapped.
    if (session_ && session_->access().is_shared()) (void)guard_.end_shares(grant);
    if (const auto found = cgroups_.find(slice); found != cgroups_.end()) {
        left_.push_back(std::move(found->second));
        cgroups_.erase(found);
    }
    return session_ ? session_->end_slice(slice) : Status();
}

Status LocalBroker::remove_left() {
    Status first;
    for (const Cgroup& cgroup : left_) {
        if (Status removed = guard_.remove_sandbox(cgroup.id()); !removed && first)
            first = std::move(removed);
    }
    left_.clear();
    return first;
}

Status LocalBroker::close() {
    forget_prepared();
    Status closed = session_ ? session_->close() : Status();
    for (auto& [slice, cgroup] : cgroups_) left_.push_back(std::move(cgroup));
    cgroups_.clear();
    if (Status removed = remove_left(); !removed && closed) closed = std::move(removed);
    Status released = guard_.release();
    return closed ? released : closed;
}

Status check_rules_hold(const Profile& profile, bool can_be_enforced) {
    const auto check = [&](const std::vector<IoctlRule>& ioctls, const std::string& path) -> Status {
        for (const IoctlRule& each : ioctls) {
            if (!each.args.empty())
                return fail("profile {}: {}.ioctls: {}: {}", profile.name, path, each.name, kNoSealing);
        }
        return {};
    };
    if (can_be_enforced) return {};
    if (profile.device) POSTERN_TRY(check(profile.device->ioctls, "device"));
    if (profile.device && profile.device->dma_map)
        return fail("profile {}: device.dma_map: {}", profile.name, kNoSealing);
    for (size_t i = 0; i < profile.files.size(); ++i)
        POSTERN_TRY(check(profile.files[i].ioctls, fmt::format("files[{}]", i)));
    return {};
}

CompiledLaunch compile_launch(const Profile& profile, const SandboxSpec& spec,
                              std::vector<std::string> spoken_weakenings) {
    CompiledLaunch launch{spec,
                          profile.sandbox.env_keep,
                          profile.sandbox.env_set,
                          cgroup_limits(profile),
                          std::move(spoken_weakenings),
                          false};
    launch.spec.argv.clear();
    launch.spec.env.clear();
    return launch;
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
