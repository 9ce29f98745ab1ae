// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/cgroup_path.h"
#include "broker-core/result.h"

namespace postern {

/// The cgroup below which a launcher makes those of its clients. The kernel limits the children only of one
/// that holds no processes itself ("no internal processes" of Documentation/admin-guide/cgroup-v2.rst), and
/// the launcher is in one. So, of what can be, the first:
/// - without limits, or in the root of the hierarchy: the launcher's own;
/// - the one above, if the launcher's user may write to it and it holds no processes: a delegated cgroup
/// whose
///   processes were put into leaves, as systemd's DelegateSubgroup= does. Never a unit of systemd that is
///   not delegated, nor past a limit of the launcher's own cgroup;
/// - the launcher's own, if the launcher is alone in it, as in `systemd-run --scope -p Delegate=yes postern`:
/// it
///   goes into a leaf until the last client is gone.
class CgroupParent {
  public:
    struct Leave {
        void operator()(CgroupParent* parent) const;
    };
    /// Of one client. When the last one ends, the launcher goes back to where it was.
    using Use = std::unique_ptr<CgroupParent, Leave>;

    /// `limits`: file → value, as of Cgroup::create(). Error: a controller is not there or cannot be enabled.
    static Result<Use> find(const std::vector<std::pair<std::string, std::string>>& limits);
    CgroupParent(const CgroupParent&) = delete;
    CgroupParent& operator=(const CgroupParent&) = delete;
    [[nodiscard]] const std::string& folder() const { return path_.folder; }
    [[nodiscard]] unsigned depth() const { return path_.depth; }

  private:
    explicit CgroupParent(CgroupPath path) : path_(std::move(path)) {}
    ~CgroupParent();
    /// The one whose launcher went to a leaf, nullptr for none: where the launcher is now is not where it
    /// was.
    static CgroupParent*& left();

    /// Moves the launcher to a leaf of its own cgroup.
    Status step_aside();
    Status enable(const std::vector<std::pair<std::string, std::string>>& limits);

    CgroupPath path_;
    unsigned uses_ = 1;
    std::string leaf_;                  ///< where the launcher went; empty: it stayed where it was
    std::vector<std::string> enabled_;  ///< controllers
};

}  // namespace postern
