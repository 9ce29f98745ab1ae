// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include "broker-core/binding.h"
#include "broker-core/boot_clock.h"
#include "broker-core/duplicate_fd.h"
#include "broker-core/guard_support.h"
#include "broker-core/owner_device.h"
#include "broker-core/pci.h"
#include "broker-core/profile_reader.h"
#include "broker-core/scope_guard.h"

namespace postern {
namespace {

/// Between two looks at an end that somebody else holds up; doubled with each, up to the next.
constexpr int64_t kFirstLook = kMillisecond;
constexpr int64_t kNextTry = 2000 * kMillisecond;
/// After what somebody else can hold up (errnum ETIME), which took seconds of everybody's time: until a
/// grant's end is tried again, and until who held up a grant may ask for another.
constexpr int64_t kPauseAfterEnd = 10'000 * kMillisecond;
constexpr int64_t kPauseAfterGrant = 60'000 * kMillisecond;
constexpr int kTriesToRemove = 10;  ///< a cgroup, 5 ms apart
/// How long the guard stays attached without a grant: attaching takes as long as many grants.
constexpr int64_t kLinger = 10'000 * kMillisecond;
constexpr const char* kStopped =
    "was stopped by `postern revoke --reset`; it is opened anew when its last client has ended";

tl::unexpected<Broker::Refused> refuse(BrokerRefusal kind, std::string message) {
    return tl::unexpected(Broker::Refused{kind, std::move(message)});
}

std::string slice_entry(const std::string& bdf, unsigned slice) {
    return fmt::format("slice/{}/{}", bdf, slice);
}

std::optional<unsigned> slice_number(std::string_view text) {
    unsigned number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
}

/// The profile, as it was checked when the device was opened.
Result<Profile> profile_of(const Json& kept) {
    POSTERN_ASSIGN(Profile profile, read_profile(kept.at("merged"), false));
    profile.name = kept.at("name").get<std::string>();
    profile.folder = kept.at("folder").get<std::string>();
    return profile;
}

Json profile_text(const LoadedProfile& loaded) {
    return {{"merged", loaded.merged}, {"name", loaded.profile.name}, {"folder", loaded.profile.folder}};
}

}  // namespace

Result<Broker> Broker::create(std::vector<BrokerDevice> config, Keeper& keeper, Log log) {
    POSTERN_TRY(guard_supported());
    Broker broker(std::move(config), keeper, std::move(log));
    POSTERN_TRY(broker.take_up());
    return broker;
}

// ---- what an earlier one has left
// -----------------------------------------------------------------------------------

Status Broker::take_up() {
    POSTERN_ASSIGN(std::vector<KeptEntry> entries, keeper_->take_all());
    std::map<std::string, std::pair<std::optional<KeptFiles>, std::map<unsigned, KeptFiles>>> devices;
    std::vector<std::pair<std::string, KeptFiles>> grants;
    for (KeptEntry& entry : entries) {
        if (entry.name == kListenerEntry) continue;
        auto text = parse_json(entry.text);
        const size_t slash = entry.name.find('/');
        const std::string kind = entry.name.substr(0, slash);
        const std::string rest = slash == std::string::npos ? "" : entry.name.substr(slash + 1);
        if (!text || !text->is_object() || rest.empty()) {
            log_(fmt::format("kept entry {}: cannot be read, and stays kept", entry.name));
            continue;
        }
        KeptFiles files{std::move(*text), std::move(entry.fds)};
        if (kind == "device") {
            devices[rest].first = std::move(files);
        } else if (kind == "slice") {
            const size_t last = rest.rfind('/');
            const auto number = slice_number(std::string_view(rest).substr(last + 1));
            if (number) devices[rest.substr(0, last)].second[*number] = std::move(files);
        } else if (kind == "grant") {
            grants.emplace_back(rest, std::move(files));
        }
    }
    // Before anything is done with what clients may have, too; and before anybody is served: loading it may
    // take longer than they would wait. Unused, it is detached after a while.
    POSTERN_TRY(need_guard());
    for (auto& [bdf, kept] : devices) {
        if (kept.first) {
            take_up_device(bdf, std::move(*kept.first), std::move(kept.second));
            continue;
        }
        // It was being opened: nobody has anything of it, and the kernel closed it with the one who did.
        for (const auto& [slice, files] : kept.second) POSTERN_TRY(keeper_->remove(slice_entry(bdf, slice)));
    }
    for (auto& [id, files] : grants) take_up_grant(id, std::move(files));
    std::vector<std::string> idle;
    for (const auto& [bdf, device] : devices_) idle.push_back(bdf);
    for (const std::string& bdf : idle) retire(bdf);
    for (const HeldGrant& held : grants_) {
        if (!held.cgroup.is_there()) continue;
        const SandboxIdentity& sandbox = held.cgroup.identity();
        POSTERN_TRY(guard_->add_sandbox(sandbox.cgroup_id, sandbox.cgroup_level));
    }
    if (!devices_.empty() || !grants_.empty())
        log_(fmt::format("took up {} devices and {} grants", devices_.size(), grants_.size()));
    return {};
}

void Broker::take_up_device(const std::string& bdf, KeptFiles files, std::map<unsigned, KeptFiles> slices) {
    const auto adopt = [&]() -> Result<Device> {
        if (!files.text.contains("profile")) return fail("its profile was not kept");
        Json text = files.text.at("profile");
        const bool bound = files.text.value("bound", false);
        const bool stopped = files.text.value("stopped", false);
        POSTERN_ASSIGN(Profile profile, profile_of(text));
        for (const UniqueFd& fd : files.fds) POSTERN_TRY(guard_->claim(fd.get()));
        std::vector<KeptFiles> in_order;
        for (auto& [number, kept] : slices) {
            if (number != in_order.size()) return fail("slice {} was not kept", in_order.size());
            in_order.push_back(std::move(kept));
        }
        POSTERN_ASSIGN(
            DeviceSession session,
            DeviceSession::adopt(profile, bdf, std::move(files), std::move(in_order), ProgramSignals::Wait));
        return Device{bdf, bound, std::move(text), std::move(profile), std::move(session), stopped};
    };
    auto device = adopt();
    if (device) {
        devices_.emplace(bdf, std::move(*device));
    } else {
        log_(fmt::format("device {}: cannot be taken up, and stays kept: {}", bdf, device.error().message));
    }
}

void Broker::take_up_grant(const std::string& id, KeptFiles files) {
    const Json& text = files.text;
    HeldGrant held;
    try {
        held.id = id;
        held.device = text.at("device").get<std::string>();
        held.slice = text.at("slice").get<unsigned>();
        held.preparing = text.at("state") == "preparing";
        held.revoked = text.value("revoked", false);
        held.for_container = text.value("container", false);
        held.caller.uid = text.at("uid").get<uid_t>();
        held.caller.gid = text.at("gid").get<gid_t>();
        held.pid = text.at("pid").get<pid_t>();
        held.command = text.at("command").get<std::string>();
        held.since = text.at("since").get<int64_t>();
        if (text.contains("cgroup")) {
            held.cgroup =
                GrantCgroup(text.at("cgroup").get<std::string>(), text.at("cgroup_id").get<uint64_t>(),
                            text.at("level").get<uint32_t>(), text.value("entered", false));
        }
        if (text.contains("left")) {
            held.left = GrantCgroup(text.at("left").get<std::string>(), text.at("left_id").get<uint64_t>(),
                                    text.at("left_level").get<uint32_t>());
        }
    } catch (const Json::exception& error) {
        log_(fmt::format("grant {}: cannot be read, and stays kept: {}", id, error.what()));
        return;
    }
    if (files.fds.size() != 1) {
        log_(fmt::format("grant {}: {} kept files, and 1 is needed; it stays kept", id, files.fds.size()));
        return;
    }
    held.pidfd = std::move(files.fds.front());
    grants_.push_back(std::move(held));
}

// ---- what is kept
// ---------------------------------------------------------------------------------------------------

Status Broker::keep_slice(const Device& device, unsigned slice) {
    const SessionFiles files = device.session.slice_files(slice);
    return keeper_->put(slice_entry(device.bdf, slice), files.text.dump(), files.fds);
}

Status Broker::keep_device(const Device& device) {
    for (unsigned slice = 0; slice < device.profile.slices; ++slice) POSTERN_TRY(keep_slice(device, slice));
    return keep_access(device);
}

Status Broker::keep_access(const Device& device) {
    SessionFiles files = device.session.device_files();
    files.text["profile"] = device.profile_text;
    files.text["bound"] = device.bound;
    if (device.stopped) files.text["stopped"] = true;
    return keeper_->put("device/" + device.bdf, files.text.dump(), files.fds);
}

Status Broker::keep_grant(const HeldGrant& held) {
    Json text{
        {"device", held.device},   {"slice", held.slice},    {"state", held.preparing ? "preparing" : "live"},
        {"uid", held.caller.uid},  {"gid", held.caller.gid}, {"pid", held.pid},
        {"command", held.command}, {"since", held.since}};
    if (held.revoked) text["revoked"] = true;
    if (held.for_container) text["container"] = true;
    if (held.cgroup.has_place()) {
        text["cgroup"] = held.cgroup.path();
        text["cgroup_id"] = held.cgroup.identity().cgroup_id;
        text["level"] = held.cgroup.identity().cgroup_level;
        if (held.cgroup.is_container()) text["entered"] = true;
    }
    if (held.left.has_place()) {
        text["left"] = held.left.path();
        text["left_id"] = held.left.identity().cgroup_id;
        text["left_level"] = held.left.identity().cgroup_level;
    }
    const int pidfd = held.pidfd.get();
    // A command names itself as it likes.
    return keeper_->put("grant/" + held.id, text.dump(-1, ' ', false, Json::error_handler_t::replace),
                        {&pidfd, 1});
}

// ---- devices
// --------------------------------------------------------------------------------------------------------

Status Broker::need_guard() {
    if (guard_) return {};
    POSTERN_ASSIGN(Guard guard, Guard::acquire());
    guard_.emplace(std::move(guard));
    return {};
}

Result<Broker::Device*> Broker::open_device(const BrokerDevice& config) {
    if (const auto open = devices_.find(config.bdf); open != devices_.end()) return &open->second;
    POSTERN_ASSIGN(LoadedProfile loaded, load_profile(config.profile));
    if (!loaded.profile.device)
        return fail("profile {}: has no \"device\" part, so that there is nothing to grant",
                    loaded.profile.name);
    if (!loaded.profile.files.empty())
        return fail("profile {}: has \"files\", which a broker does not grant; leave them out",
                    loaded.profile.name);
    bool was_bound = true;
    if (config.bind) {
        // A device that is another than the profile's does not lose its driver.
        POSTERN_ASSIGN(const PciDevice pci, read_pci_device(config.bdf));
        POSTERN_TRY(DeviceSession::check(loaded.profile, pci));
        POSTERN_ASSIGN(const std::string driver, bind_device(config.bdf));
        was_bound = driver == "vfio-pci";
    }
    // One that cannot be used goes back to the driver that it had.
    ScopeGuard unbind([&] {
        if (!was_bound) (void)unbind_device(config.bdf);
    });
    POSTERN_ASSIGN(const Backend backend,
                   config.backend ? Result<Backend>(*config.backend) : default_backend());
    POSTERN_ASSIGN(DeviceSession session,
                   DeviceSession::open(loaded.profile, config.bdf, backend, ProgramSignals::Wait));
    unbind.dismiss();
    Device device{config.bdf, !was_bound, profile_text(loaded), std::move(loaded.profile),
                  std::move(session)};
    if (auto kept = keep_device(device); !kept) {
        (void)close_device(device);
        return propagate(std::move(kept));
    }
    return &devices_.emplace(config.bdf, std::move(device)).first->second;
}

/// The entry goes first: what is half closed must not be taken up as whole.
Status Broker::close_device(Device& device) {
    Status first = keeper_->remove("device/" + device.bdf);
    if (Status closed = device.session.close(); !closed && first) first = std::move(closed);
    for (unsigned slice = 0; slice < device.profile.slices; ++slice) {
        if (Status removed = keeper_->remove(slice_entry(device.bdf, slice)); !removed && first)
            first = std::move(removed);
    }
    if (device.bound) {
        if (auto unbound = unbind_device(device.bdf); !unbound && first)
            first = propagate(std::move(unbound));
    }
    return first;
}

/// A device that nobody uses goes on as the configuration has it now: closed, if that is otherwise, or if it
/// was stopped.
void Broker::retire(const std::string& bdf) {
    const auto open = devices_.find(bdf);
    const bool used = std::any_of(grants_.begin(), grants_.end(),
                                  [&](const HeldGrant& each) { return each.device == bdf; });
    if (open == devices_.end() || used || open->second.session.reaches_others()) return;
    const BrokerDevice* config = find_device(config_, bdf);
    const bool stopped = open->second.stopped;
    if (config != nullptr && !stopped) {
        const auto loaded = load_profile(config->profile);
        // One that cannot be read now is told to the next who asks; the device is as it was.
        if (!loaded || profile_text(*loaded) == open->second.profile_text) return;
    }
    log_(fmt::format("device {}: {}; it is given back", bdf,
                     stopped ? "was stopped" : "the configuration has changed"));
    if (Status closed = close_device(open->second); !closed) log_(closed.error().message);
    devices_.erase(open);
}

/// The windows of the slice that other devices may reach. Those are opened for it.
Status Broker::connect_peers(const Device& device, unsigned slice) {
    const std::vector<PlannedPeer>& peers = device.session.plan().slices.at(slice).peers;
    for (size_t i = 0; i < peers.size(); ++i) {
        const PlannedPeer& peer = peers[i];
        const auto connect = [&]() -> Status {
            POSTERN_ASSIGN(const BrokerDevice* config, find_peer(config_, peer.device));
            POSTERN_ASSIGN(const PciDevice own, read_pci_device(device.bdf));
            POSTERN_ASSIGN(const PciDevice other, read_pci_device(peer.device));
            // Such devices may answer each other's requests before the IOMMU has translated the address.
            if (own.iommu_group == other.iommu_group)
                return fail(
                    "{} and {} are in one IOMMU group ({}): what one sends to the other need not pass the "
                    "IOMMU; plug one of them in elsewhere",
                    device.bdf, peer.device, own.iommu_group.value_or(0));
            POSTERN_ASSIGN(const UniqueFd dmabuf, device.session.export_for(peer));
            POSTERN_ASSIGN(Device * reaching, open_device(*config));
            if (reaching->stopped) return fail("device {}: {}", peer.device, kStopped);
            POSTERN_TRY(reaching->session.reserve_peer(device.bdf, slice, peer));
            POSTERN_TRY(keep_access(*reaching));
            return reaching->session.map_peer(dmabuf.get(), peer);
        };
        if (Status connected = connect(); !connected)
            return propagate(std::move(connected),
                             fmt::format("profile {}: device.peers[{}]", device.profile.name, i));
    }
    return {};
}

Result<std::vector<std::string>> Broker::disconnect_peers(const std::string& bdf, unsigned slice) {
    std::vector<std::string> reached;
    for (auto& [other, device] : devices_) {
        POSTERN_ASSIGN(const bool ended, device.session.unmap_peers(bdf, slice));
        device.is_kept = device.is_kept && !ended;
        if (device.is_kept) continue;
        POSTERN_TRY(keep_access(device));
        device.is_kept = true;
        reached.push_back(other);
    }
    return reached;
}

// ---- grants
// ---------------------------------------------------------------------------------------------------------

tl::expected<Broker::Granted, Broker::Refused> Broker::grant(const Caller& caller, int pidfd,
                                                             const BrokerRequest& request) {
    auto bdf = parse_bdf(request.device);
    if (!bdf) return refuse(BrokerRefusal::BadRequest, bdf.error().message);
    const BrokerDevice* config = find_device(config_, *bdf);
    // Whoever may not use a device is not told whether there is one; root may use all.
    if (config == nullptr || !may_use(*config, caller)) {
        return refuse(
            caller.uid == 0 ? BrokerRefusal::NotFound : BrokerRefusal::Denied,
            fmt::format("device {}: uid {} may use no such device of the broker's; an administrator "
                        "allows it in {}",
                        *bdf, caller.uid, kBrokerConfig));
    }
    auto pid = pid_of(pidfd);
    if (!pid) return refuse(BrokerRefusal::BadRequest, pid.error().message);
    if (*pid == 0) return refuse(BrokerRefusal::BadRequest, "the caller has ended");

    const auto failed = [&](Error error) {
        return refuse(BrokerRefusal::Failed, std::move(error).within("device " + *bdf).message);
    };
    auto opened = open_device(*config);
    if (!opened) return failed(std::move(opened.error()));
    Device& device = **opened;
    if (!request.profile.empty() && request.profile != device.profile.name) {
        return refuse(
            BrokerRefusal::BadRequest,
            fmt::format("device {}: the broker has it under profile {}, not {}; leave --profile out, or "
                        "name that",
                        *bdf, device.profile.name, request.profile));
    }
    // A number is one process's as long as that lives, and those that are over are being ended.
    auto held = std::find_if(grants_.begin(), grants_.end(), [&](const HeldGrant& each) {
        return each.pid == *pid && each.device == *bdf && !each.ending && !has_ended(each.pidfd.get());
    });
    if (held != grants_.end() && request.slice && *request.slice != held->slice) {
        return refuse(
            BrokerRefusal::BadRequest,
            fmt::format("device {}: pid {} has slice {} already; a process has one slice of a device", *bdf,
                        *pid, held->slice));
    }
    if (held == grants_.end()) {
        // A user's own processes can be moved out of the sandbox, and binding a device to an iommufd asks no
        // hook about that. It stays bound when the grant has ended.
        if (caller.uid != 0 && device.profile.device->dma_map && !config->trusts_dma_map) {
            return refuse(
                BrokerRefusal::Denied,
                fmt::format(
                    "device {}: all its clients have memory in the address space whose iommufd "
                    "\"dma_map\" gives to each, and with that uid {} could put a VFIO device of their own "
                    "into it; if no user has one, say \"trust_dma_map\": true in {}/{}.json",
                    *bdf, caller.uid, kBrokerConfig, config->name));
        }
        if (device.stopped) return refuse(BrokerRefusal::Busy, fmt::format("device {}: {}", *bdf, kStopped));
        if (const auto wait = held_up_.find(caller.uid); wait != held_up_.end()) {
            const int64_t left = wait->second - clock_time(CLOCK_MONOTONIC);
            if (left > 0) {
                return refuse(BrokerRefusal::Failed,
                              fmt::format("uid {} has held up the broker, by a cgroup in which nothing runs; "
                                          "it may ask again in {} s",
                                          caller.uid, left / (1000 * kMillisecond) + 1));
            }
            held_up_.erase(wait);
        }
        std::vector<TakenSlice> taken;
        for (const HeldGrant& each : grants_) {
            if (each.device == *bdf) taken.push_back({each.slice, each.caller.uid});
        }
        SliceChoice choice = choose_slice(*config, device.profile.slices, caller, request.slice, taken);
        if (choice.kind != SliceChoice::Kind::Free) {
            return refuse(
                choice.kind == SliceChoice::Kind::Busy ? BrokerRefusal::Busy : BrokerRefusal::Denied,
                std::move(choice.reason));
        }
        HeldGrant fresh;
        fresh.id = random_id();
        fresh.device = *bdf;
        fresh.slice = choice.slice;
        fresh.caller = caller;
        fresh.for_container = request.container;
        fresh.pid = *pid;
        fresh.command = command_name(*pid);
        fresh.since = clock_time(CLOCK_REALTIME);
        auto kept = duplicate_fd(pidfd, "a pidfd");
        if (!kept) return failed(kept.error());
        fresh.pidfd = std::move(*kept);
        grants_.push_back(std::move(fresh));
        held = std::prev(grants_.end());
    }
    if (!held->preparing) {
        // Once is enough: what its client gave up or lost by a revocation would be its again.
        const auto refusal = refuse_again(*held);
        if (refusal) return refuse(refusal->kind, refusal->message);
    } else {
        if (Status prepared = prepare(*held, device, request); !prepared) {
            abandon(held);
            return failed(std::move(prepared.error()));
        }
    }
    auto granted = hand_out(*held, device);
    if (!granted) {
        if (granted.error().errnum == ETIME && caller.uid != 0)
            held_up_[caller.uid] = clock_time(CLOCK_MONOTONIC) + kPauseAfterGrant;
        abandon(held);
        return failed(std::move(granted.error()));
    }
    return std::move(*granted);
}

/// Why a grant that was handed out is not handed out again; nothing if its files never arrived, or are
/// closed.
std::optional<Broker::Refused> Broker::refuse_again(const HeldGrant& held) {
    if (held.revoked)
        return Refused{BrokerRefusal::Denied,
                       fmt::format("grant {}: was revoked; end pid {}, and start anew", held.id, held.pid)};
    if (auto guard = need_guard(); !guard) return Refused{BrokerRefusal::Failed, guard.error().message};
    const auto open = guard_->has_files(held.id);
    if (!open) return Refused{BrokerRefusal::Failed, open.error().message};
    if (!*open) return std::nullopt;
    return Refused{BrokerRefusal::BadRequest,
                   fmt::format("device {}: pid {} has slice {}, and its files are open already", held.device,
                               held.pid, held.slice)};
}

Status Broker::prepare(HeldGrant& held, Device& device, const BrokerRequest& request) {
    // First of all: from here on the slice is not free, whatever happens to this process.
    POSTERN_TRY(keep_grant(held));
    POSTERN_TRY(need_guard());
    // What a broker before this one had begun.
    POSTERN_TRY(disconnect_peers(device.bdf, held.slice));
    POSTERN_TRY(device.session.begin_slice(held.slice));
    POSTERN_TRY(keep_slice(device, held.slice));
    POSTERN_TRY(connect_peers(device, held.slice));
    if (!held.cgroup.is_there()) {
        POSTERN_ASSIGN(held.cgroup, GrantCgroup::place(held.pid, held.id));
        // Before it is made: what is there has to be found.
        POSTERN_TRY(keep_grant(held));
        POSTERN_TRY(held.cgroup.make(request.cgroup));
    }
    const SandboxIdentity& sandbox = held.cgroup.identity();
    POSTERN_TRY(guard_->add_sandbox(sandbox.cgroup_id, sandbox.cgroup_level));
    return held.cgroup.take_in(held.pidfd.get());
}

Result<Broker::Granted> Broker::hand_out(HeldGrant& held, Device& device) {
    POSTERN_TRY(need_guard());
    Grant grant = begin_grant(held.slice, held.id);
    POSTERN_TRY(device.session.add_to(grant, *guard_, held.cgroup.identity()));
    POSTERN_TRY(guard_->forget_refusals(grant.id));
    POSTERN_TRY(finish_grant(grant));
    if (held.preparing) {
        held.preparing = false;
        if (Status kept = keep_grant(held); !kept) {
            held.preparing = true;
            return propagate(std::move(kept));
        }
    }
    return Granted{held.id, held.device, held.slice, held.cgroup.path(), std::move(grant.fds)};
}

/// What was begun for a client that got nothing. It goes on living: where it was before.
void Broker::abandon(Grants::iterator held) {
    if (!held->preparing) return;  // it has the files already, of an earlier time
    if (held->cgroup.is_there()) held->cgroup.let_out();
    held->ending = true;
    freed_ = attend() || freed_;
}

tl::expected<void, Broker::Refused> Broker::enter(const Caller& caller, pid_t runtime,
                                                  const BrokerRequest& request) {
    const auto held = std::find_if(grants_.begin(), grants_.end(), [&](const HeldGrant& each) {
        return each.id == request.grant && (caller.uid == 0 || caller.uid == each.caller.uid);
    });
    if (held == grants_.end()) {
        return refuse(BrokerRefusal::NotFound,
                      fmt::format("no live grant {} of uid {}", request.grant, caller.uid));
    }
    const auto no = [&](BrokerRefusal kind, std::string_view why) {
        return refuse(kind, fmt::format("grant {}: {}", held->id, why));
    };
    // Another's processes would be in the sandbox, and the first client not in it any more.
    if (!held->for_container)
        return no(BrokerRefusal::BadRequest, "was not asked for with \"container\", and stays where it is");
    if (held->cgroup.is_container() && held->pid == request.pid && !has_ended(held->pidfd.get())) {
        if (Status cleared = clear_left(*held); !cleared)
            return no(BrokerRefusal::Failed, cleared.error().message);
        return {};
    }
    if (held->cgroup.is_container())
        return no(BrokerRefusal::BadRequest,
                  fmt::format("the container of pid {} has it already", held->pid));
    if (held->preparing || held->ending || has_ended(held->pidfd.get()))
        return no(BrokerRefusal::BadRequest, "is not whole, or ends already");
    auto pidfd = pidfd_of(request.pid);
    if (!pidfd) return no(BrokerRefusal::BadRequest, pidfd.error().message);
    auto container = GrantCgroup::of_container(request.pid, runtime, caller.uid);
    if (!container) return no(BrokerRefusal::BadRequest, container.error().message);
    // While it lives, its number is nobody else's.
    if (has_ended(pidfd->get())) return no(BrokerRefusal::BadRequest, "the container has ended");
    const bool taken = std::any_of(grants_.begin(), grants_.end(), [&](const HeldGrant& each) {
        return each.cgroup.identity().cgroup_id == container->identity().cgroup_id;
    });
    if (taken)
        return no(BrokerRefusal::BadRequest, "the container has another grant already; it can have one");
    if (Status moved = move_in(*held, std::move(*pidfd), request.pid, *container); !moved)
        return no(BrokerRefusal::Failed, moved.error().message);
    return {};
}

/// Repeated by its caller if this process ends in between: up to the moment when it is kept, the grant is as
/// it was.
Status Broker::move_in(HeldGrant& held, UniqueFd pidfd, pid_t pid, const GrantCgroup& container) {
    POSTERN_TRY(need_guard());
    const SandboxIdentity& sandbox = container.identity();
    POSTERN_TRY(guard_->add_sandbox(sandbox.cgroup_id, sandbox.cgroup_level));
    ScopeGuard remove_sandbox([&] { (void)guard_->remove_sandbox(sandbox.cgroup_id); });
    POSTERN_TRY(guard_->move(held.id, sandbox));
    ScopeGuard move_back([&] { (void)guard_->move(held.id, held.cgroup.identity()); });
    HeldGrant entered;
    entered.id = held.id;
    entered.device = held.device;
    entered.slice = held.slice;
    entered.preparing = false;
    entered.revoked = held.revoked;
    entered.for_container = true;
    entered.caller = held.caller;
    entered.pid = pid;
    entered.command = command_name(pid);
    entered.since = held.since;
    entered.pidfd = std::move(pidfd);
    entered.cgroup = container;
    entered.left = held.cgroup;
    POSTERN_TRY(keep_grant(entered));
    move_back.dismiss();
    remove_sandbox.dismiss();
    held = std::move(entered);
    return clear_left(held);
}

/// The runtime goes back to where it was.
Status Broker::clear_left(HeldGrant& held) {
    if (!held.left.has_place()) return {};
    const bool all_out = held.left.let_out();
    POSTERN_TRY(need_guard());
    POSTERN_TRY(guard_->remove_sandbox(held.left.identity().cgroup_id));
    Status removed = held.left.remove();
    // Who is dying there is not listed any more, and keeps it for a moment.
    for (int i = 0; i < kTriesToRemove && all_out && !removed && removed.error().errnum == EBUSY; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        removed = held.left.remove();
    }
    POSTERN_TRY(std::move(removed));
    held.left = GrantCgroup();
    return keep_grant(held);
}

bool Broker::is_settled() const {
    return std::all_of(grants_.begin(), grants_.end(), [](const HeldGrant& each) {
        return each.cgroup.is_container() && !each.left.has_place() && !each.ending &&
               !has_ended(each.pidfd.get());
    });
}

void Broker::look_again(HeldGrant& held) {
    held.pause = std::min(std::max(2 * held.pause, kFirstLook), kNextTry);
    held.next_try = clock_time(CLOCK_MONOTONIC) + held.pause;
}

Result<bool> Broker::end(HeldGrant& held) {
    held.next_try = clock_time(CLOCK_MONOTONIC) + kNextTry;
    if (held.cgroup.is_populated()) {
        held.cgroup.kill();
        if (held.cgroup.is_populated()) {
            look_again(held);
            return false;
        }
    }
    if (Status cleared = clear_left(held); !cleared) {
        // Whose it was may keep them from going back: a cgroup with controllers for those below it takes no
        // processes (cgroups(7), "no internal processes"). It is the broker's own, and the grant is over.
        if (!held.trouble.empty()) held.left.kill();
        return propagate(std::move(cleared));
    }
    POSTERN_TRY(need_guard());
    const auto mapped = guard_->end_shares(held.id);
    if (!mapped) {
        if (mapped.error().errnum == ETIME) held.next_try = clock_time(CLOCK_MONOTONIC) + kPauseAfterEnd;
        return Failure(mapped.error());
    }
    POSTERN_ASSIGN(bool open, guard_->has_files(held.id));
    const auto device = devices_.find(held.device);
    if (open && device != devices_.end()) {
        // A dma-buf that the client has mapped itself is open as long as it is mapped.
        POSTERN_TRY(device->second.session.unmap_own(held.slice));
        POSTERN_ASSIGN(open, guard_->has_files(held.id));
    }
    if (open || *mapped) {
        look_again(held);
        return fail(
            "open files or mappings of it are left outside of its cgroup; its slice is given to nobody until "
            "they are closed");
    }
    POSTERN_ASSIGN(const auto reached, disconnect_peers(held.device, held.slice));
    for (const std::string& bdf : reached) retire(bdf);
    if (device != devices_.end()) {
        Status ended = device->second.session.end_slice(held.slice);
        // Programs find nothing of a device whose memory space is off; it is closed before anybody has it.
        if (!ended && !device->second.stopped) return propagate(std::move(ended));
    }
    if (held.cgroup.has_place()) {
        POSTERN_TRY(guard_->remove_sandbox(held.cgroup.identity().cgroup_id));
        POSTERN_TRY(held.cgroup.remove());
    }
    POSTERN_TRY(keeper_->remove("grant/" + held.id));
    return true;
}

bool Broker::attend() {
    bool freed = std::exchange(freed_, false);
    std::vector<std::string> left;
    for (auto held = grants_.begin(); held != grants_.end();) {
        if (!held->ending && has_ended(held->pidfd.get())) held->ending = true;
        if (!held->ending || clock_time(CLOCK_MONOTONIC) < held->next_try) {
            ++held;
            continue;
        }
        const auto over = end(*held);
        if (!over && held->trouble != over.error().message) {
            held->trouble = over.error().message;
            log_(fmt::format("grant {}: slice {} of {}: {}", held->id, held->slice, held->device,
                             held->trouble));
        }
        if (!over || !*over) {
            ++held;
            continue;
        }
        if (!held->trouble.empty()) log_(fmt::format("grant {}: is over at last", held->id));
        left.push_back(held->device);
        held = grants_.erase(held);
        freed = true;
    }
    for (const std::string& bdf : left) retire(bdf);
    if (!guard_is_idle()) {
        idle_since_ = 0;
    } else if (idle_since_ == 0) {
        idle_since_ = clock_time(CLOCK_MONOTONIC);
    } else if (clock_time(CLOCK_MONOTONIC) - idle_since_ > kLinger) {
        if (Status released = guard_->release(); !released) log_(released.error().message);
        guard_.reset();
    }
    return freed;
}

int Broker::attention_due() const {
    int64_t next = INT64_MAX;
    for (const HeldGrant& each : grants_) {
        if (each.ending) next = std::min(next, each.next_try);
    }
    // Rounded up, or the wait would end a little too early, again and again.
    if (next != INT64_MAX)
        return static_cast<int>(std::max<int64_t>(next - clock_time(CLOCK_MONOTONIC), 0) / kMillisecond + 1);
    return guard_is_idle() ? 1000 : -1;
}

/// Of a file that is shared the guard cannot let go before it is closed, and then nobody else would see to
/// it.
bool Broker::guard_is_idle() const {
    return guard_ && grants_.empty() && std::none_of(devices_.begin(), devices_.end(), [](const auto& each) {
               return each.second.session.shares_files();
           });
}

std::vector<int> Broker::clients() const {
    std::vector<int> pidfds;
    for (const HeldGrant& held : grants_) {
        if (!held.ending) pidfds.push_back(held.pidfd.get());
    }
    return pidfds;
}

// ---- who has what
// ---------------------------------------------------------------------------------------------------

Json Broker::devices(const Caller& caller) const {
    Json list = Json::array();
    for (const BrokerDevice& config : config_) {
        if (!may_use(config, caller)) continue;
        Json device{{"name", config.name}, {"device", config.bdf}, {"profile", config.profile}};
        const auto open = devices_.find(config.bdf);
        device["open"] = open != devices_.end();
        if (open != devices_.end()) {
            const auto used = std::count_if(grants_.begin(), grants_.end(),
                                            [&](const HeldGrant& each) { return each.device == config.bdf; });
            device["slices"] = open->second.profile.slices;
            device["used"] = used;
        }
        list.push_back(std::move(device));
    }
    return {{"devices", std::move(list)}};
}

Json Broker::grants(const Caller& caller) const {
    Json list = Json::array();
    for (const HeldGrant& held : grants_) {
        if (caller.uid != 0 && caller.uid != held.caller.uid) continue;
        const auto device = devices_.find(held.device);
        list.push_back({{"grant", held.id},
                        {"device", held.device},
                        {"profile", device == devices_.end() ? "" : device->second.profile.name},
                        {"slice", held.slice},
                        {"uid", held.caller.uid},
                        {"pid", held.pid},
                        {"command", held.command},
                        {"since", utc_text(held.since)},
                        {"sandbox", held.cgroup.identity().cgroup_id},
                        {"state", held.ending      ? "ending"
                                  : held.preparing ? "preparing"
                                                   : "live"}});
        if (!held.trouble.empty()) list.back()["trouble"] = held.trouble;
    }
    return {{"grants", std::move(list)}};
}

tl::expected<std::string, Broker::Refused> Broker::revoke(const Caller& caller,
                                                          const BrokerRequest& request) {
    const auto held = std::find_if(grants_.begin(), grants_.end(), [&](const HeldGrant& each) {
        return each.id == request.grant && (caller.uid == 0 || caller.uid == each.caller.uid);
    });
    if (held == grants_.end()) {
        return refuse(
            BrokerRefusal::NotFound,
            fmt::format("no live grant {} of uid {}; `postern ps` lists them", request.grant, caller.uid));
    }
    if (request.reset && caller.uid != 0) {
        return refuse(
            BrokerRefusal::Denied,
            fmt::format("grant {}: a reset stops every slice of the device, so only root may ask for it",
                        request.grant));
    }
    const auto failed = [&](Error error) {
        return refuse(BrokerRefusal::Failed, std::move(error).within("grant " + held->id).message);
    };
    if (auto guard = need_guard(); !guard) return failed(std::move(guard.error()));
    // Kept first: whoever comes after this process must not hand it out again.
    held->revoked = true;
    if (auto kept = keep_grant(*held); !kept) return failed(std::move(kept.error()));
    const auto revoked = guard_->revoke(held->id);
    if (!revoked) return failed(revoked.error());
    std::string words = fmt::format("grant {}: every further call on its {} open file{} is refused", held->id,
                                    *revoked, *revoked == 1 ? "" : "s");
    if (request.reset) {
        const auto device = devices_.find(held->device);
        if (device == devices_.end()) return failed(Error{"its device is not open", 0});
        // Kept first, as above.
        device->second.stopped = true;
        if (auto kept = keep_access(device->second); !kept) return failed(std::move(kept.error()));
        const auto reset = stop_device(device->second.session.device());
        if (!reset) return failed(reset.error());
        words += fmt::format("; {} {}; its memory space is off until its last client has ended", held->device,
                             *reset ? "was reset" : "has no way to be reset");
    }
    if (request.kill) {
        held->cgroup.kill();
        words += "; its processes are killed";
    }
    return words;
}

void Broker::kill_all() {
    for (HeldGrant& held : grants_) {
        held.cgroup.kill();
        held.ending = true;
        held.next_try = 0;
    }
}

Status Broker::close() {
    Status first;
    for (auto& [bdf, device] : devices_) {
        if (Status closed = close_device(device); !closed && first) first = std::move(closed);
    }
    devices_.clear();
    if (guard_) {
        if (Status released = guard_->release(); !released && first) first = std::move(released);
        guard_.reset();
    }
    return first;
}

void Broker::leave() {
    for (auto& [bdf, device] : devices_) device.session.leave();
    devices_.clear();
    grants_.clear();
    if (guard_) guard_->leave();
    guard_.reset();
}

}  // namespace postern
