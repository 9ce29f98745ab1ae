// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/grant.h"
#include "broker-core/guard_listener.h"
#include "broker-core/guard_lock.h"
#include "broker-core/guard_pins.h"
#include "broker-core/guard_policy.h"
#include "broker-core/guard_proof.h"
#include "broker-core/guard_support.h"
#include "broker-core/result.h"

namespace postern {

inline constexpr const char* kNoSealing =
    "rules on ioctl arguments need mseal(2), which this kernel does not have; boot Linux 6.10 or later, or "
    "leave "
    "the ioctls with \"args\" out of the profile";

/// One process's use of the guard, which puts a policy on a struct file for as long as that file lives.
///
/// The guard itself is in the kernel and shared by all posterns: attached with the first use, detached with
/// the last. A use that ends without release(), by SIGKILL say, leaves the guard attached, so that its
/// clients are never unguarded; the next use cleans up.
///
/// A forked child must not use its copy; its destructor does nothing there.
class Guard {
  public:
    /// Loads and attaches the guard, or joins it. Nothing is left behind on failure.
    [[nodiscard]] static Result<Guard> acquire(const std::string& bpffs = kBpffs);

    Guard(Guard&& other) noexcept
        : pins_(std::move(other.pins_)),
          use_(std::exchange(other.use_, std::nullopt)),
          my_sandboxes_(std::move(other.my_sandboxes_)),
          owner_(other.owner_) {}
    Guard& operator=(Guard&&) = delete;
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard();

    /// Makes the cgroup's subtree a sandbox: in it, unregistered files of exclusive kinds are refused.
    /// `level` is the cgroup's depth; the root is 0.
    [[nodiscard]] Status add_sandbox(uint64_t cgroup_id, uint32_t level);
    /// When its last task is gone.
    [[nodiscard]] Status remove_sandbox(uint64_t cgroup_id);

    /// Puts `policy` on the struct file behind `fd`, which is borrowed: from now on on every duplicate of it,
    /// in every process, this one included. Error if it has one already.
    [[nodiscard]] Status register_file(int fd, const FilePolicy& policy);
    /// Puts `policy` on the struct file behind `fd`, which is borrowed, for the tasks of the policy's sandbox
    /// alone. The owner of the file, this process, is under no policy; all others may do nothing with it. May
    /// be repeated: then what the sandbox has stays, as narrow as it has become.
    [[nodiscard]] Status share_file(int fd, const FilePolicy& policy);
    /// The shared file behind `fd`, which another process had owned, is this one's. One that is not shared
    /// yet, or of a guard that is gone, is no error.
    [[nodiscard]] Status claim(int fd);
    /// Ends what the sandboxes of `grant` share, once nobody is in them. True if something of it is still
    /// mapped by somebody: then it is refused everything, and stays.
    [[nodiscard]] Result<bool> end_shares(const std::string& grant);
    /// A launch has failed: the files of `grant`, which no client got, are as they were before.
    [[nodiscard]] Status forget(const std::string& grant);
    /// Whether the mapping at `address` of this process is the file's behind `fd`, as the hooks will see it:
    /// some drivers put another file into a mapping of theirs.
    [[nodiscard]] Result<bool> maps_file(int fd, const void* address);
    /// Whether this kernel can make memory unchangeable (mseal(2), Linux 6.10), without which no rule on an
    /// ioctl's arguments can be enforced.
    [[nodiscard]] bool can_rule_arguments() const;
    /// Makes the kind of file behind `fd` an exclusive one, without ruling this file: groups and containers.
    /// Of a device's node that is open as a path only (O_PATH), the kind that its driver makes of it; ENXIO
    /// where nobody has tried to open it yet.
    [[nodiscard]] Status learn(int fd);

    /// Refused calls so far on the open files of `grant`.
    [[nodiscard]] Result<uint64_t> denied(const std::string& grant) const { return pins_.denied(grant); }

    /// Forgets the refusals on the files of `grant` so far: those of their proof are no client's. Only before
    /// anybody else has them.
    [[nodiscard]] Status forget_refusals(const std::string& grant);
    /// Whether a file of `grant`'s own is open or mapped anywhere; of shared ones nobody can say it.
    [[nodiscard]] Result<bool> has_files(const std::string& grant) const;
    /// Refuses everything on the files of `grant` from now on. Returns how many there were.
    [[nodiscard]] Result<size_t> revoke(const std::string& grant);
    /// Makes the sandbox with that cgroup, added before, the one of `grant`.
    [[nodiscard]] Status move(const std::string& grant, const SandboxIdentity& sandbox);
    /// Hears of refusals from now on, of one sandbox by its cgroup or of all (0).
    [[nodiscard]] Result<GuardListener> listen(uint64_t cgroup_id);

    /// Gives the use up, with its sandboxes. Registered files that are still open stay guarded.
    [[nodiscard]] Status release();
    /// Ends the use and leaves its sandboxes as they are, for another process to go on with.
    void leave();

  private:
    Guard(GuardPins pins, GuardUse use, pid_t owner)
        : pins_(std::move(pins)), use_(std::move(use)), owner_(owner) {}

    [[nodiscard]] static Status check(const postern_pending& answer, int fd, const char* what);
    /// The policy in the kernel's form, with who registers it and when.
    [[nodiscard]] Result<postern_policy> sign(const FilePolicy& policy) const;
    [[nodiscard]] Status request(int fd, const postern_pending& request, const char* what);

    GuardPins pins_;
    std::optional<GuardUse> use_;  ///< empty: released
    std::vector<uint64_t> my_sandboxes_;
    pid_t owner_;
};

}  // namespace postern
