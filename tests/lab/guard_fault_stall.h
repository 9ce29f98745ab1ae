// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>

#include "broker-core/unique_fd.h"

namespace postern::test {

/// A page of this process that is not there until somebody touches it, the kernel in the middle of a system
/// call included (userfaultfd(2)). Who does waits until `meanwhile` has run.
class FaultStall {
  public:
    /// `page` is the start of an anonymous page that nobody has touched; it becomes zeros.
    FaultStall(void* page, std::function<void()> meanwhile);
    FaultStall(const FaultStall&) = delete;
    FaultStall& operator=(const FaultStall&) = delete;
    ~FaultStall();

    /// Whether this process can have it.
    [[nodiscard]] bool works() const { return works_; }
    /// Whether somebody has waited.
    [[nodiscard]] bool hit() const { return hit_; }

  private:
    void serve();

    char* page_;
    std::function<void()> meanwhile_;
    UniqueFd faults_;
    UniqueFd stop_;
    bool works_ = false;
    std::atomic<bool> hit_ = false;
    std::thread thread_;
};

}  // namespace postern::test
