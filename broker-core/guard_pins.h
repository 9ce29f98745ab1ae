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
///     map_files map_sandboxes map_only_ways map_pending map_rings map_listeners map_state map_about
///     prog_<name>      for each hook, and for the iterator that registers files
///     link_<name>      while attached
///
/// map_about is pinned last and removed first: where it is, the rest is complete. The maps hold the truth;
/// this class holds file descriptors. All of it is called under GuardLock.
class GuardPins {
  public:
    /// Takes the pinned set, or loads the guard and pins it. A set of another build of the same ABI is
    /// replaced if `alone` says that nobody uses it and no file is registered, and shared otherwise. Remains
    /// of an interrupted start are removed. All or nothing.
    [[nodiscard]] static Result<GuardPins> open(const std::string& bpffs, bool alone);
    /// The pinned set as it is, or nothing if there is none. Error: one that is not ours to read.
    [[nodiscard]] static Result<std::optional<GuardPins>> find(const std::string& bpffs);
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
    [[nodiscard]] Status remove_sandbox(uint64_t cgroup_id);
    [[nodiscard]] Result<std::vector<uint64_t>> sandboxes() const;

    [[nodiscard]] Result<bool> any_file() const;
    /// The registered files: the key that names each, and its policy as it is now.
    [[nodiscard]] Result<std::vector<std::pair<uint64_t, postern_policy>>> files() const;
    /// Refuses everything on the file `key` if it still is one of `grant`; says whether it was.
    [[nodiscard]] Result<bool> revoke(uint64_t key, const std::string& grant);
    /// Makes another cgroup the sandbox of `grant`, whose files none may be the only way to something.
    [[nodiscard]] Status move(const std::string& grant, const SandboxIdentity& sandbox);

    /// Begins to count the refusals on the files of `grant` from 0.
    [[nodiscard]] Status restart_count(const std::string& grant);
    /// Takes their policies off the files of `grant`, which nobody has got: they are not guarded any more.
    [[nodiscard]] Status forget(const std::string& grant);
    /// Which file is behind `fd` of this process, as a key of files().
    [[nodiscard]] Result<uint64_t> key_of(int fd);

    [[nodiscard]] Result<postern_state> state() const;
    [[nodiscard]] int rings() const { return rings_.get(); }
    [[nodiscard]] int listeners() const { return listeners_.get(); }
    /// Refused calls so far on the files of `grant` that are still open.
    [[nodiscard]] Result<uint64_t> denied(const std::string& grant) const;

  private:
    [[nodiscard]] Result<bool> change(uint64_t key, const std::string& grant, uint32_t what,
                                      const SandboxIdentity& sandbox = {});
    GuardPins(std::string folder, UniqueFd files, UniqueFd sandboxes, UniqueFd only_ways, UniqueFd pending,
              UniqueFd rings, UniqueFd listeners, UniqueFd state)
        : folder_(std::move(folder)),
          files_(std::move(files)),
          sandboxes_(std::move(sandboxes)),
          only_ways_(std::move(only_ways)),
          pending_(std::move(pending)),
          rings_(std::move(rings)),
          listeners_(std::move(listeners)),
          state_(std::move(state)) {}

    [[nodiscard]] static Result<GuardPins> open_pinned(const std::string& folder);

    std::string folder_;
    UniqueFd files_;
    UniqueFd sandboxes_;
    UniqueFd only_ways_;
    UniqueFd pending_;
    UniqueFd rings_;
    UniqueFd listeners_;
    UniqueFd state_;
};

}  // namespace postern
