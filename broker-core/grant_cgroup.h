// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "broker-core/grant.h"
#include "broker-core/result.h"

namespace postern {

/// The cgroup v2 by which the guard knows the client of a broker's grant: made below the one that the client
/// is in already, so that all limits it has go on to hold, and root's, so that nobody else gets into it. Or a
/// container's, which is its runtime's to make and to remove. It outlives the broker; a successor takes it up
/// by its path and id. A value: removing it is its owner's to ask for.
class GrantCgroup {
  public:
    GrantCgroup() = default;

    /// Where `postern-grant-<grant>` is to be made, below the cgroup that `pid` is in. The name is that of no
    /// other.
    [[nodiscard]] static Result<GrantCgroup> place(pid_t pid, const std::string& grant);
    /// Makes it there, if a process that is gone has not done so. `limits`: file → value; the controllers
    /// must be enabled above already, for a cgroup with processes in it cannot enable any.
    [[nodiscard]] Status make(const std::map<std::string, std::string>& limits);
    /// One that was placed before, and may have been made. `id` 0: it is not known.
    GrantCgroup(std::string path, uint64_t id, uint32_t level, bool is_container = false);
    /// That of the container whose first process is `pid`. Error: it shares its cgroup with this process or
    /// with `runtime`, who makes it, or it is nobody's that `uid` may speak for: root for all, others for
    /// those whose folder is theirs.
    [[nodiscard]] static Result<GrantCgroup> of_container(pid_t pid, pid_t runtime, uid_t uid);

    [[nodiscard]] bool has_place() const { return !path_.empty(); }
    [[nodiscard]] bool is_container() const { return is_container_; }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] const SandboxIdentity& identity() const { return identity_; }
    [[nodiscard]] bool is_there() const;

    /// Moves the process behind `pidfd` into it, all threads. Error: it ended meanwhile.
    [[nodiscard]] Status take_in(int pidfd) const;
    /// Moves those who are in it back to the cgroup above. False if that one takes nobody.
    bool let_out() const;
    /// Sends SIGKILL to all in it, and waits for nobody.
    void kill() const;
    [[nodiscard]] bool is_populated() const;
    /// Removes it, with what was made below it. One that is gone, or whose path is another's by now, is no
    /// error, and a container's is left alone.
    [[nodiscard]] Status remove() const;

  private:
    std::string path_;
    SandboxIdentity identity_;
    bool is_container_ = false;
};

}  // namespace postern
