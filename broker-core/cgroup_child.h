// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "broker-core/result.h"

namespace postern {

/// How long a child is waited for. Only time in which this process gets to run counts.
struct ChildPatience {
    std::chrono::milliseconds all;  ///< in all
    /// While it gets nothing done: uses no time of a CPU, and waits for something else than one.
    std::chrono::milliseconds stall;
};
/// An emulated machine takes its time.
inline constexpr ChildPatience kPatienceWithChild{std::chrono::seconds(10), std::chrono::seconds(10)};

/// Does `work` in a child of this process that is in the cgroup v2 with that id from its birth on, and in
/// nothing else apart from it; the error is the child's. The child ends with `work`, which must change
/// nothing that stays, and must not wait: after kPatienceWithChild, or once the cgroup is frozen, it is
/// killed; errnum ETIME. Source: clone3(2), CLONE_INTO_CGROUP (Linux 5.7); where seccomp forbids that, it
/// moves there before `work`.
[[nodiscard]] Status in_cgroup(uint64_t cgroup_id, const std::function<Status()>& work);
/// The same where this process is.
[[nodiscard]] Status in_child(const std::function<Status()>& work,
                              const ChildPatience& patience = kPatienceWithChild);

}  // namespace postern
