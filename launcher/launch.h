// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "broker-core/device_session.h"
#include "broker-core/granted_files.h"
#include "broker-core/guard.h"
#include "broker-core/profile.h"
#include "launcher/cgroup.h"
#include "launcher/compiled_launch.h"
#include "launcher/prepared_sandbox.h"
#include "launcher/sandbox.h"
#include "launcher/sandbox_spec.h"

namespace postern {

class RefusalReport;

/// The broker inside of `postern run` and `postern pool`: owns the device, if there is one, and the guard,
/// and starts clients on slices of it and on the profile's files.
class LocalBroker {
  public:
    /// Owns the device, unless `device` is empty. Refuses without root and where the guard cannot be
    /// enforced, before anything is touched.
    /// `backend` names one (parse_backend()); empty: default_backend().
    [[nodiscard]] static Result<LocalBroker> open(const Profile& profile, const std::string& device,
                                                  GrantedFiles files, const std::string& backend = {});

    LocalBroker(LocalBroker&&) noexcept = default;

    /// Tells `report` of clients that begin and end; it is borrowed until the last end().
    void tell(RefusalReport& report) { report_ = &report; }

    /// Grants `slice` and starts the client of `spec` on it, in a cgroup of its own.
    [[nodiscard]] tl::expected<RunningClient, LaunchError> start(unsigned slice, SandboxSpec spec);

    /// Of the client that was started on `slice` and not yet ended: what its grant is called, and its cgroup.
    struct Place {
        std::string grant;
        const Cgroup* cgroup = nullptr;
    };
    [[nodiscard]] Place place_of(unsigned slice) const;

    /// While a client has `slice`: makes what the next one needs and does not depend on the end of this one,
    /// a cgroup, a guarded grant, a sandbox of `spec`; the next start() has then less to do. Also does what
    /// end() has put off. Whether there is anything of that; what fails is start()'s to do and to tell.
    bool prepare(unsigned slice, const SandboxSpec& spec);
    /// Ends what prepare() has made.
    void forget_prepared();

    /// The client of `slice` is gone: slice teardown. Its cgroup, in which nobody is, is removed when there
    /// is time.
    Status end(unsigned slice);
    /// All clients are gone: device teardown, the guard given back. Returns the first error.
    Status close();

    /// The device itself, for grants that go past the guard (benchmarks, controls).
    [[nodiscard]] DeviceSession& session() { return session_.value(); }

  private:
    LocalBroker(Guard guard, std::optional<DeviceSession> session, GrantedFiles files, Profile profile)
        : guard_(std::move(guard)),
          session_(std::move(session)),
          files_(std::move(files)),
          profile_(std::move(profile)) {}

    void report_end(unsigned slice);
    /// What a client is born into: its cgroup, known to the guard, and its grant.
    struct Birthplace {
        Cgroup cgroup;
        Grant grant;
    };
    enum class When { Now, Next };
    [[nodiscard]] Result<Birthplace> make_place(unsigned slice, When when);
    [[nodiscard]] Status fill(Grant& grant, const SandboxIdentity& identity, When when);
    void leave(Birthplace place);
    enum class Stage { More, Complete, Failed };
    [[nodiscard]] Stage get_ahead(unsigned slice, const SandboxSpec& spec);
    [[nodiscard]] Status remove_left();

    // Destroyed in reverse: cgroups and device fds go before the guard that watches over them.
    Guard guard_;
    std::optional<DeviceSession> session_;  ///< empty: only files are granted
    GrantedFiles files_;
    std::map<unsigned, Cgroup> cgroups_;
    std::vector<Cgroup> left_;  ///< of clients that are gone
    unsigned places_ = 0;       ///< made so far; cgroups are named by it
    struct Next {
        Birthplace place;
        std::optional<PreparedSandbox> sandbox;  ///< last: it ends before its cgroup
    };
    std::map<unsigned, Next> next_;  ///< by slice
    std::set<unsigned> done_;        ///< slices for whose next client nothing is left to be done
    /// What the guard counts of a grant ends with its open files, and so does the rule that a file is used in
    /// its sandbox only as it was granted: as long as the client runs, it cannot close the last ones.
    struct Kept {
        std::string grant;
        std::vector<UniqueFd> files;
    };
    std::map<unsigned, Kept> kept_;
    RefusalReport* report_ = nullptr;
    Profile profile_;
};

/// Where rules on arguments cannot be enforced there is no launch: they are never left out.
[[nodiscard]] Status check_rules_hold(const Profile& profile, bool can_be_enforced);

/// A launch in which nothing but the environment and the command is left to be decided.
[[nodiscard]] CompiledLaunch compile_launch(const Profile& profile, const SandboxSpec& spec,
                                            std::vector<std::string> spoken_weakenings);

/// The cgroup limits of a profile as Cgroup::create() takes them.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> cgroup_limits(const Profile& profile);

/// That the command exists and can be run, before a device is touched for it.
[[nodiscard]] tl::expected<void, LaunchError> check_command(const SandboxSpec& spec);

}  // namespace postern
