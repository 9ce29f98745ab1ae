// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

// A device file of the cdev, or an iommufd, cannot be opened twice: its owner and all clients have the same
// struct file. The guard tells them apart by the process: the owner is known by a token that is kept with the
// task, and ends with it.

/// By what the guard knows this process as an owner; the same for its whole life. A forked child has another.
[[nodiscard]] uint64_t owner_token();

/// What the guard is to know of a child of this process.
class ChildMark {
  public:
    /// It is a program that this process starts for its shared files: it may do with them what this process
    /// may, and so may all that it starts.
    [[nodiscard]] static Result<ChildMark> program();
    /// It tries what is refused: that is no refusal to be counted or told.
    [[nodiscard]] static Result<ChildMark> proof();
    /// Called by the child, before it executes anything; only system calls. False with errno. Where there is
    /// no guard there is nothing to be done.
    [[nodiscard]] bool apply() const noexcept;

  private:
    [[nodiscard]] static Result<ChildMark> make(uint64_t token, uint32_t flags);

    UniqueFd owners_;  ///< the guard's map; empty: no guard
    uint64_t token_ = 0;
    uint32_t flags_ = 0;
};

}  // namespace postern
