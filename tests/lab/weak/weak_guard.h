// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "broker-core/guard_policy.h"
#include "broker-core/result.h"

struct weak_bpf;

namespace postern::test {

/// The guard that weak.bpf.c is, on the ioctls of this process that `policy` lists with rules; as long as it
/// lives.
class WeakGuard {
  public:
    [[nodiscard]] static Result<WeakGuard> attach(const FilePolicy& policy);

  private:
    struct Destroy {
        void operator()(weak_bpf* object) const;
    };
    explicit WeakGuard(weak_bpf* object) : object_(object) {}

    std::unique_ptr<weak_bpf, Destroy> object_;
};

}  // namespace postern::test
