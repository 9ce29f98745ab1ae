// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bpf/policy.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The guard's maps, programs and links, pinned in `<bpffs>/postern/abi-<POSTERN_GUARD_ABI>/` and so shared
/// by every postern of this ABI:
///
///     map_files map_sandboxes map_pending map_kinds map_about
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

    /// Attaches what is not attached. Refuses if a file is registered and a program was not attached: files
    /// may have come and gone unseen. All or nothing.
    [[nodiscard]] Status attach();
    /// Detaches everything. Refuses while a file is registered: its end would not be seen, and its address
    /// would go on to mean another file.
    [[nodiscard]] Status detach();
    [[nodiscard]] bool any_attached() const;

    /// Runs one request over the fds of this process and returns it with the answer filled in.
    [[nodiscard]] Result<postern_pending> run(const postern_pending& request);

    [[nodiscard]] Status add_sandbox(uint64_t cgroup_id, uint32_t level);
    /// One that is not there is no error.
    [[nodiscard]] Status remove_sandbox(uint64_t cgroup_id);
    [[nodiscard]] Result<std::vector<uint64_t>> sandboxes() const;

    [[nodiscard]] Result<bool> any_file() const;
    /// Refused calls so far on the files of `grant` that are still open.
    [[nodiscard]] Result<uint64_t> denied(const std::string& grant) const;

  private:
    GuardPins(std::string folder, UniqueFd files, UniqueFd sandboxes, UniqueFd pending, UniqueFd kinds)
        : folder_(std::move(folder)),
          files_(std::move(files)),
          sandboxes_(std::move(sandboxes)),
          pending_(std::move(pending)),
          kinds_(std::move(kinds)) {}

    [[nodiscard]] static Result<GuardPins> open_pinned(const std::string& folder);

    std::string folder_;
    UniqueFd files_;
    UniqueFd sandboxes_;
    UniqueFd pending_;
    UniqueFd kinds_;
};

}  // namespace postern
