// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>

#include "broker-core/result.h"

namespace postern {

/// A program of bpf/guard.bpf.c that is attached to a hook.
struct GuardHook {
    const char* program;
    bool optional;  ///< not every kernel has the hook
};

inline constexpr std::array kGuardHooks = {
    GuardHook{"on_ioctl", false},    GuardHook{"on_ioctl_compat", true}, GuardHook{"on_mmap", false},
    GuardHook{"on_mprotect", false}, GuardHook{"on_access", false},      GuardHook{"on_receive", false},
    GuardHook{"on_free", false},     GuardHook{"on_uring_cmd", true},    GuardHook{"on_trace", false},
};
/// The iterator that registers files.
inline constexpr const char* kGuardRegistrar = "on_own_file";
/// The program that revokes.
inline constexpr const char* kGuardRevoker = "on_revoke";
/// The iterator that looks for mappings.
inline constexpr const char* kGuardSearcher = "on_mapping";
/// All that is not attached to a hook.
inline constexpr std::array kGuardHelpers = {kGuardRegistrar, kGuardRevoker, kGuardSearcher};
/// Pinned in this order, and removed in the opposite one.
inline constexpr std::array kGuardMaps = {"files",   "sandboxes", "only_ways", "shares", "owners", "search",
                                          "pending", "rings",     "listeners", "state",  "about"};

/// Tells one build of the guard from another: a hash of its object file.
[[nodiscard]] uint64_t guard_stamp();

/// Loads the guard's programs into the kernel and pins maps and programs in `folder`, map_about last. What
/// was pinned before a failure stays for the caller to remove. The error carries the kernel's reason.
[[nodiscard]] Status load_guard(const std::string& folder);

}  // namespace postern
