// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "tests/lab/cost/child_process.h"

namespace postern::cost {

/// Instructions per call on files that are not guarded.
struct PlainCosts {
    long ioctl = 0;
    long pread = 0;
    long write = 0;
    long mmap = 0;
};

/// A process of its own whose files are not guarded. It is there before the guard is, and its memory map
/// never changes, so that what its calls cost depends on nothing but what is attached.
class Bystander {
  public:
    [[nodiscard]] static Result<Bystander> start();

    [[nodiscard]] Result<PlainCosts> measure();

  private:
    Bystander(UniqueFd socket, ChildProcess process)
        : socket_(std::move(socket)), process_(std::move(process)) {}

    UniqueFd socket_;
    ChildProcess process_;
};

}  // namespace postern::cost
