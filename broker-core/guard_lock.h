// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// The machine-wide lock under which the pinned set is made, changed and taken down, and under which files
/// are registered one at a time. flock(2) on a file in kRuntimeDir, so a killed holder gives it back.
class GuardLock {
  public:
    /// Waits for it.
    [[nodiscard]] static Result<GuardLock> take();

  private:
    explicit GuardLock(UniqueFd file) : file_(std::move(file)) {}

    UniqueFd file_;
};

/// One use of the guard by one process. The kernel keeps the count, as shared locks on a file, so that it is
/// right whatever way a process ends; a forked child that has not yet called exec keeps its parent's use
/// alive. All of this is called under GuardLock.
class GuardUse {
  public:
    [[nodiscard]] static Result<GuardUse> begin();

    /// Whether nobody else uses the guard. This use goes on.
    [[nodiscard]] Result<bool> is_only_one();
    /// Ends it here and now, whoever inherited the file.
    void end();

  private:
    explicit GuardUse(UniqueFd file) : file_(std::move(file)) {}

    UniqueFd file_;
};

}  // namespace postern
