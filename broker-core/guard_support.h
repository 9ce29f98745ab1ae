// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "broker-core/result.h"

namespace postern {

inline constexpr const char* kBpffs = "/sys/fs/bpf";

/// Whether this kernel and this process can have the guard, found out without loading it. The error names the
/// first thing that is missing and how to mend it.
[[nodiscard]] Status guard_supported(const std::string& bpffs = kBpffs);

/// What is known of a kernel's preemption.
struct Preemption {
    int major = 0;  ///< of the kernel's version
    int minor = 0;
    std::string version;  ///< uname -v
    std::string debugfs;  ///< /sys/kernel/debug/sched/preempt: "none (voluntary) full"; empty: unknown
    std::string cmdline;  ///< /proc/cmdline
    std::string config;   ///< the kernel's .config; empty: unknown
};

/// Linux before 6.2 counts a BPF program that is preempted in the middle as running on its CPU, and does not
/// run it for a second task there: the hook then allows (mended by Linux commit 271de525e1d7). A kernel in
/// which kernel code is preempted (preempt=full) is therefore refused. Unknown is refused. Pure.
[[nodiscard]] Status check_preemption(const Preemption& kernel);

}  // namespace postern
