// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/cgroup_parent.h"

namespace postern {

/// A cgroup v2 of one sandbox, `postern-<grant>` below a CgroupParent. Destruction kills what is in it and
/// removes it. Works on hybrid set-ups too, where v2 has no controllers and limits are therefore an
/// error. Sources: Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
class Cgroup {
  public:
    /// `grant` begins with the launcher's pid ("812-0"), by which a later launch tells what a killed one
    /// left. `limits`: file → value, e.g. {"memory.max", "268435456"}, {"pids.max", "64"}, {"cpu.max", "50000
    /// 100000"}. Enables the controllers they need in the parent. Error: no v2 hierarchy, no right to it, a
    /// controller that is not there or cannot be enabled; nothing is left behind.
    static Result<Cgroup> create(std::string_view grant,
                                 const std::vector<std::pair<std::string, std::string>>& limits);
    Cgroup(Cgroup&&) noexcept = default;
    Cgroup& operator=(Cgroup&&) = delete;
    Cgroup(const Cgroup&) = delete;
    Cgroup& operator=(const Cgroup&) = delete;
    ~Cgroup();

    /// The folder, for SandboxSpec::cgroup_fd; borrowed.
    [[nodiscard]] int fd() const { return dir_.get(); }
    [[nodiscard]] const std::string& path() const { return path_; }
    /// What bpf_get_current_cgroup_id() returns for a task in it.
    [[nodiscard]] std::uint64_t id() const { return id_; }
    /// Its depth as bpf_get_current_ancestor_cgroup_id() counts: the root is 0. Error: inside a cgroup
    /// namespace other than the first, from where the depth cannot be seen.
    [[nodiscard]] Result<unsigned> level() const;

    /// Kills everything in it (cgroup.kill).
    void kill();

  private:
    Cgroup() = default;

    CgroupParent::Use parent_;  ///< first: the launcher goes back when the cgroup is gone
    std::string path_;
    UniqueFd dir_;
    std::uint64_t id_ = 0;
    unsigned depth_ = 0;
};

}  // namespace postern
