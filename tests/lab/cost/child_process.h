// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <utility>

#include "broker-core/result.h"

namespace postern::cost {

/// A forked child that runs `body`, and is killed and waited for at the end of this object, or with its
/// parent.
class ChildProcess {
  public:
    [[nodiscard]] static Result<ChildProcess> start(const std::function<void()>& body);

    ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    ChildProcess& operator=(ChildProcess&&) = delete;
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;
    ~ChildProcess();

    [[nodiscard]] pid_t pid() const { return pid_; }

  private:
    explicit ChildProcess(pid_t pid) : pid_(pid) {}

    pid_t pid_;
};

}  // namespace postern::cost
