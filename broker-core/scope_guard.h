// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

namespace postern {

/// Runs `action` when the scope ends unless dismissed: what was begun is undone on every way out.
template <typename Action>
class ScopeGuard {
  public:
    explicit ScopeGuard(Action action) : action_(std::move(action)) {}
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;
    ~ScopeGuard() {
        if (armed_) action_();
    }
    void dismiss() { armed_ = false; }

  private:
    Action action_;
    bool armed_ = true;
};

}  // namespace postern
