// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bpf/policy.h"
#include "broker-core/grant.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The guard's maps, programs and links, pinned in `<bpffs>/postern/abi-<POSTERN_GUARD_ABI>/` and so shared
/// by every postern of this ABI:
///
///     map_<name>       of kGuardMaps
///     prog_<name>      for each hook, for the iterators and for what changes policies
///     link_<name>      while attached
///
/// map_about is pinned last and removed first: where it is, the rest is complete. The maps hold the truth;
/// this class holds file descriptors. All of it is called under GuardLock.
class GuardPins {
  public:
    /// Names a policy that some grant has.
    struct Key {
        uint64_t file = 0;   ///< the struct file's address
        uint64_t share = 0;  ///< of a shared file: id of the cgroup of the sandbox that the policy is for
        bool operator==(const Key&) const = default;
    };
    using Policies = std::vector<std::pair<Key, postern_policy>>;

    /// Takes the pinned set, or loads the guard and pins it. A set of another build of the same ABI is
    /// replaced if `alone` says that nobody uses it and no file is registered, and shared otherwise. Remains
    /// of an interrupted start are removed. All or nothing.
    [[nodiscard]] static Result<GuardPins> open(const std::string& bpffs, bool alone);
    /// The pinned set as it is, or nothing if there is none. Error: one that is not ours to read.
    [[nodiscard]] static Result<std::optional<GuardPins>> find(const std::string& bpffs);
    /// The map of owners (POSTERN_OWNER_…), by pidfd; empty where no set is pinned.
    [[nodiscard]] static Result<UniqueFd> owners(const std::string& bpffs);
    /// Removes the set. Refuses while a file is registered.
    [[nodiscard]] Status remove();

    /// Attaches what is not attached. Refuses if a file is registered and a program was not attached: files
    /// may have come and gone unseen. All or nothing.
    [[nodiscard]] Status attach();
    /// Detaches everything. Refuses while a file is registered: its end would not be seen, and its address
    /// would go on to mean another file.
    [[nodiscard]] Status detach();
    [[nodiscard]] bool any_attached() const;
    /// The programs that are attached.
    [[nodiscard]] std::vector<std::string> attached() const;
    [[nodiscard]] const std::string& folder() const { return folder_; }
    /// Whether this still is what is pinned there: it may have been replaced or removed.
    [[nodiscard]] bool is_current() const;
    [[nodiscard]] Result<postern_about> about() const;

    /// Runs one request over the fds of this process and returns it with the answer filled in.
    [[nodiscard]] Result<postern_pending> run(const postern_pending& request);

    [[nodiscard]] Status add_sandbox(uint64_t cgroup_id, uint32_t level);
    /// One that is not there is no error.
    /// Its own entry; what it shares stays.
    [[nodiscard]] Status forget_sandbox(uint64_t cgroup_id);
    [[nodiscard]] Status remove_sandbox(uint64_t cgroup_id);
    [[nodiscard]] Result<std::vector<uint64_t>> sandboxes() const;

    [[nodiscard]] Result<bool> any_file() const;
    /// The policies of grants as they are now, each with the key that names it.
    [[nodiscard]] Result<Policies> files() const;
    /// The files that are shared, with the policies of those who have no share: the part of `file` in a Key.
    [[nodiscard]] Result<Policies> shared_files() const;
    /// Refuses everything that `key` allows if it still is of `grant`; says whether it was.
    [[nodiscard]] Result<bool> revoke(const Key& key, const std::string& grant);
    /// Makes another cgroup the sandbox of `grant`, whose files none may be the only way to something.
    [[nodiscard]] Status move(const std::string& grant, const SandboxIdentity& sandbox);

    /// Begins to count the refusals on the files of `grant` from 0.
    [[nodiscard]] Status restart_count(const std::string& grant);
    /// Takes their policies off the files of `grant`, which nobody has got: they are not guarded any more.
    [[nodiscard]] Status forget(const std::string& grant);
    [[nodiscard]] Status forget_share(const Key& key);
    /// Which file is behind `fd` of this process: Key::file.
    [[nodiscard]] Result<uint64_t> key_of(int fd);

    /// One request about the file behind `fd`, by its POSTERN_PENDING_ number, such as that this process owns
    /// shared files with the token `value`. EBUSY, EEXIST and the like are the guard's answers.
    [[nodiscard]] Status ask(uint32_t action, int fd, uint64_t value);
    /// Whether a place that the share `key` allows to map is mapped by any process but this one.
    [[nodiscard]] Result<bool> is_mapped(const Key& key, const postern_policy& share);
    /// Shares of files that are gone.
    [[nodiscard]] Status sweep_shares();

    [[nodiscard]] Result<postern_state> state() const;
    [[nodiscard]] int rings() const { return rings_.get(); }
    [[nodiscard]] int listeners() const { return listeners_.get(); }
    /// Refused calls so far on the files of `grant` that are still open.
    [[nodiscard]] Result<uint64_t> denied(const std::string& grant) const;

  private:
    [[nodiscard]] Result<bool> change(const Key& key, const std::string& grant, uint32_t what,
                                      const SandboxIdentity& sandbox = {});
    [[nodiscard]] Status move_share(const Key& key, const SandboxIdentity& sandbox);
    [[nodiscard]] Result<std::optional<postern_share>> share_key(const Key& key) const;
    explicit GuardPins(std::string folder) : folder_(std::move(folder)) {}

    [[nodiscard]] static Result<GuardPins> open_pinned(const std::string& folder);

    std::string folder_;
    UniqueFd files_;
    UniqueFd sandboxes_;
    UniqueFd only_ways_;
    UniqueFd shares_;
    UniqueFd search_;
    UniqueFd pending_;
    UniqueFd rings_;
    UniqueFd listeners_;
    UniqueFd state_;
};

}  // namespace postern
