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
/// is in already, so that all limits it has go on to hold, and root's, so that nobody else gets into it. It
/// outlives the broker; a successor takes it up by its path and id. A value: removing it is its owner's to
/// ask for.
class GrantCgroup {
  public:
    GrantCgroup() = default;

    /// Makes `postern-grant-<grant>` below the cgroup that `pid` is in. `limits`: file → value; the
    /// controllers must be enabled there already, for a cgroup with processes in it cannot enable any.
    [[nodiscard]] static Result<GrantCgroup> make(pid_t pid, const std::string& grant,
                                                  const std::map<std::string, std::string>& limits);
    /// One that was made before; whether it still is there is for is_there() to say.
    GrantCgroup(std::string path, uint64_t id, uint32_t level)
        : path_(std::move(path)), identity_{id, level} {}

    [[nodiscard]] bool is_made() const { return !path_.empty(); }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] const SandboxIdentity& identity() const { return identity_; }
    [[nodiscard]] bool is_there() const;

    /// Moves the process behind `pidfd` into it, all threads. Error: it ended meanwhile.
    [[nodiscard]] Status take_in(int pidfd) const;
    /// Moves those who are in it back to the cgroup above.
    void let_out() const;
    /// Sends SIGKILL to all in it, and waits for nobody.
    void kill() const;
    [[nodiscard]] bool is_populated() const;
    /// Removes it, with what was made below it. One that is gone, or whose path is another's by now, is no
    /// error.
    [[nodiscard]] Status remove() const;

  private:
    std::string path_;
    SandboxIdentity identity_;
};

}  // namespace postern
