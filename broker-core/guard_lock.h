// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <utility>
#include <vector>

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
    /// The other users, by pid as this process sees them; 0 is one that it does not see.
    [[nodiscard]] Result<std::vector<pid_t>> others() const;

  private:
    explicit GuardUse(UniqueFd file) : file_(std::move(file)) {}

    UniqueFd file_;
};

/// One of a few numbered places that posterns share, a listener's. flock(2) as above: a killed holder's is
/// free.
class GuardSlot {
  public:
    /// Nothing if somebody holds it.
    [[nodiscard]] static Result<std::optional<GuardSlot>> try_take(unsigned number);

    GuardSlot(GuardSlot&& other) noexcept : number_(other.number_), file_(std::move(other.file_)) {}
    GuardSlot& operator=(GuardSlot&& other) noexcept {
        std::swap(number_, other.number_);
        std::swap(file_, other.file_);
        return *this;
    }
    GuardSlot(const GuardSlot&) = delete;
    GuardSlot& operator=(const GuardSlot&) = delete;
    /// Frees it here and now, even if a forked child has inherited the file.
    ~GuardSlot();

    [[nodiscard]] unsigned number() const { return number_; }

  private:
    GuardSlot(unsigned number, UniqueFd file) : number_(number), file_(std::move(file)) {}

    unsigned number_;
    UniqueFd file_;
};

}  // namespace postern
