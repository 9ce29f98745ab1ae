// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "broker-core/broker_access.h"
#include "broker-core/broker_config.h"
#include "broker-core/broker_message.h"
#include "broker-core/device_session.h"
#include "broker-core/grant.h"
#include "broker-core/grant_cgroup.h"
#include "broker-core/guard.h"
#include "broker-core/keeper.h"
#include "broker-core/peer.h"
#include "broker-core/profile.h"

namespace postern {

/// The one entry of a keeper that is not the broker's own: the socket that callers connect.
inline constexpr const char* kListenerEntry = "listener";

/// Owns the devices of its configuration and grants slices of them to processes. Knows no sockets.
///
/// All that it would need to go on after its sudden end is in the keeper before anybody can depend on it:
///
///     slice/BDF/N   memory and eventfds of a slice
///     device/BDF    container, group, device; the profile that it was set up by. After its slices: so a
///     device that
///                   is found is whole
///     grant/ID      whose slice N is, with a pidfd; "preparing" until all is done that comes before the
///     answer
///
/// A grant ends with its process. Then, and in this order, each step such that it can be repeated: everybody
/// in its cgroup is killed, no open file of it may be left anywhere, the slice is torn down, the cgroup goes,
/// and at last the entry. Only then is the slice free.
class Broker {
  public:
    using Log = std::function<void(const std::string& line)>;

    struct Granted {
        std::string grant;
        std::string device;
        unsigned slice = 0;
        std::string cgroup;
        std::vector<NamedFd> fds;
    };
    struct Refused {
        BrokerRefusal kind = BrokerRefusal::Failed;
        std::string message;
    };

    /// Takes up what the keeper has; it is borrowed for the broker's life. What cannot be taken up is logged
    /// and stays kept.
    [[nodiscard]] static Result<Broker> create(std::vector<BrokerDevice> config, Keeper& keeper, Log log);

    Broker(Broker&&) noexcept = default;
    Broker& operator=(Broker&&) = delete;
    Broker(const Broker&) = delete;
    Broker& operator=(const Broker&) = delete;
    ~Broker() = default;

    /// Grants a slice to the process behind `pidfd` (borrowed), which is moved into a cgroup of the grant's
    /// own. A process has one slice of a device at most, and gets it once; again only if its files did not
    /// arrive. Busy: ask again when a slice may have become free.
    [[nodiscard]] tl::expected<Granted, Refused> grant(const Caller& caller, int pidfd,
                                                       const BrokerRequest& request);
    /// The devices that `caller` may use.
    [[nodiscard]] Json devices(const Caller& caller) const;
    /// The live grants: all for root, their own for others.
    [[nodiscard]] Json grants(const Caller& caller) const;
    [[nodiscard]] tl::expected<std::string, Refused> revoke(const Caller& caller,
                                                            const BrokerRequest& request);
    /// The container that `request` names has the grant from now on: its cgroup is the sandbox, and its first
    /// process the one that the grant ends with. `runtime`: who says so. May be repeated.
    [[nodiscard]] tl::expected<void, Refused> enter(const Caller& caller, pid_t runtime,
                                                    const BrokerRequest& request);

    /// pidfds of the clients, borrowed: readable when one has ended.
    [[nodiscard]] std::vector<int> clients() const;
    /// Goes on with the ends of grants. True if a slice has become free.
    bool attend();
    /// In how many milliseconds attend() should be called even if no client ends; -1: there is no need.
    [[nodiscard]] int attention_due() const;
    [[nodiscard]] bool has_grants() const { return !grants_.empty(); }
    /// Whether nothing is left to be seen to: each grant is a running container's, whose runtime says when it
    /// ends.
    [[nodiscard]] bool is_settled() const;
    /// Ends all grants, with their clients.
    void kill_all();

    /// Gives everything back: devices as they were found, nothing kept. Only without grants.
    [[nodiscard]] Status close();
    /// Lets go of everything: it stays with the keeper.
    void leave();

  private:
    struct Device {
        std::string bdf;
        bool bound = false;  ///< by this broker or one before it, which is undone in the end
        Json profile_text;   ///< merged, by which it was set up
        Profile profile;
        DeviceSession session;
        bool stopped = false;  ///< by a revocation with a reset, until it is opened anew
        bool is_kept = true;   ///< that its peers are gone is known to the keeper, too
    };
    struct HeldGrant {
        std::string id;
        std::string device;
        unsigned slice = 0;
        bool preparing = true;
        bool revoked = false;
        bool for_container = false;  ///< asked for by the process that makes it
        Caller caller;
        pid_t pid = 0;
        std::string command;
        int64_t since = 0;  ///< CLOCK_REALTIME, ns
        UniqueFd pidfd;
        GrantCgroup cgroup;
        GrantCgroup left;  ///< where the runtime was before its container entered; to be removed
        bool ending = false;
        std::string trouble;   ///< why its end takes so long; told once
        int64_t next_try = 0;  ///< CLOCK_MONOTONIC, ns
        int64_t pause = 0;     ///< ns, before the next look at what somebody else holds up
    };
    using Grants = std::list<HeldGrant>;

    Broker(std::vector<BrokerDevice> config, Keeper& keeper, Log log)
        : config_(std::move(config)), keeper_(&keeper), log_(std::move(log)) {}

    [[nodiscard]] Status take_up();
    void take_up_device(const std::string& bdf, KeptFiles files, std::map<unsigned, KeptFiles> slices);
    void take_up_grant(const std::string& id, KeptFiles files);

    [[nodiscard]] Result<Device*> open_device(const BrokerDevice& config);
    [[nodiscard]] Status keep_device(const Device& device);
    /// Without its slices: what is known of the device as a whole has changed.
    [[nodiscard]] Status keep_access(const Device& device);
    [[nodiscard]] Status keep_slice(const Device& device, unsigned slice);
    [[nodiscard]] Status keep_grant(const HeldGrant& grant);
    [[nodiscard]] Status need_guard();

    [[nodiscard]] std::optional<Refused> refuse_again(const HeldGrant& held);
    [[nodiscard]] Status prepare(HeldGrant& held, Device& device, const BrokerRequest& request);
    [[nodiscard]] Result<Granted> hand_out(HeldGrant& held, Device& device);
    void abandon(Grants::iterator held);
    [[nodiscard]] Status move_in(HeldGrant& held, UniqueFd pidfd, pid_t pid, const GrantCgroup& container);
    [[nodiscard]] Status clear_left(HeldGrant& held);
    static void look_again(HeldGrant& held);
    /// The next steps of an end; true when it is over.
    [[nodiscard]] Result<bool> end(HeldGrant& held);
    [[nodiscard]] Status connect_peers(const Device& device, unsigned slice);
    /// Devices that reached something of the slice, and do no more.
    [[nodiscard]] Result<std::vector<std::string>> disconnect_peers(const std::string& bdf, unsigned slice);
    [[nodiscard]] bool guard_is_idle() const;
    void retire(const std::string& bdf);
    Status close_device(Device& device);

    std::vector<BrokerDevice> config_;
    Keeper* keeper_;
    Log log_;
    std::optional<Guard> guard_;  ///< while there are grants, and a little longer
    bool freed_ = false;          ///< a slice, outside of attend()
    int64_t idle_since_ = 0;      ///< CLOCK_MONOTONIC, ns
    std::map<std::string, Device> devices_;
    Grants grants_;
    std::map<uid_t, int64_t> held_up_;  ///< users who are given nothing until then (CLOCK_MONOTONIC, ns)
};

}  // namespace postern
