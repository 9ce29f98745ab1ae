// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_policy.h"

#include <algorithm>
#include <limits>

namespace postern {
namespace {

/// loff_t is signed: no file has an offset beyond.
constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();

Result<postern_window> encode(const GuardWindow& window) {
    if (window.length == 0) return fail("is empty");
    if (window.offset > kMaxOffset || window.length > kMaxOffset - window.offset) {
        return fail("offset {:#x}, length {:#x} runs past the largest file offset", window.offset,
                    window.length);
    }
    if (!window.read && !window.write) return fail("allows neither reading nor writing");
    if (!window.mmap && !window.pread) return fail("allows neither mmap nor pread");

    postern_window encoded{};
    encoded.offset = window.offset;
    encoded.length = window.length;
    encoded.vma_offset = window.mmap ? window.vma_offset : 0;
    encoded.flags = (window.read ? POSTERN_WINDOW_READ : 0) | (window.write ? POSTERN_WINDOW_WRITE : 0) |
                    (window.mmap ? POSTERN_WINDOW_MMAP : 0) | (window.pread ? POSTERN_WINDOW_PREAD : 0);
    return encoded;
}

uint32_t encode(Forward forward) {
    switch (forward) {
        case Forward::Sandbox:
            return POSTERN_FORWARD_SANDBOX;
        case Forward::Anyone:
            return POSTERN_FORWARD_ANYONE;
        case Forward::Never:
            break;
    }
    return POSTERN_FORWARD_NEVER;
}

}  // namespace

Result<postern_policy> encode(const FilePolicy& policy) {
    if (policy.grant.empty() || policy.grant.size() >= POSTERN_GRANT_SIZE) {
        return fail("policy: grant id \"{}\" has {} characters; it takes 1 to {}", policy.grant,
                    policy.grant.size(), POSTERN_GRANT_SIZE - 1);
    }
    if (policy.ioctls.size() > POSTERN_MAX_IOCTLS) {
        return fail("policy of {}: {} ioctls; the guard holds {}", policy.grant, policy.ioctls.size(),
                    POSTERN_MAX_IOCTLS);
    }
    if (policy.windows.size() > POSTERN_MAX_WINDOWS) {
        return fail("policy of {}: {} windows; the guard holds {}", policy.grant, policy.windows.size(),
                    POSTERN_MAX_WINDOWS);
    }
    const bool has_sandbox = policy.sandbox_cgroup_id != 0;
    if (has_sandbox && (policy.cgroup_level == 0 || policy.cgroup_level > POSTERN_MAX_CGROUP_LEVEL)) {
        return fail("policy of {}: the sandbox's cgroup is at level {}; the guard looks at levels 1 to {}",
                    policy.grant, policy.cgroup_level, POSTERN_MAX_CGROUP_LEVEL);
    }
    if (policy.forward == Forward::Sandbox && !has_sandbox) {
        return fail("policy of {}: forward is \"sandbox\" and there is no sandbox", policy.grant);
    }

    postern_policy encoded{};
    std::copy(policy.grant.begin(), policy.grant.end(), encoded.grant);
    encoded.sandbox_cgroup = policy.sandbox_cgroup_id;
    encoded.cgroup_level = policy.cgroup_level;
    encoded.forward = encode(policy.forward);
    encoded.flags = policy.exclusive ? POSTERN_POLICY_EXCLUSIVE : 0;
    encoded.n_ioctls = static_cast<uint32_t>(policy.ioctls.size());
    std::copy(policy.ioctls.begin(), policy.ioctls.end(), encoded.ioctls);
    for (const GuardWindow& window : policy.windows) {
        auto each = encode(window);
        if (!each) {
            return propagate(std::move(each),
                             fmt::format("policy of {}: window {}", policy.grant, encoded.n_windows));
        }
        encoded.windows[encoded.n_windows++] = *each;
    }
    return encoded;
}

}  // namespace postern
