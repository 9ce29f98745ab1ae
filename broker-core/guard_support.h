// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"

namespace postern {

inline constexpr const char* kBpffs = "/sys/fs/bpf";

/// Whether this kernel and this process can have the guard, found out without loading it. The error names the
/// first thing that is missing and how to mend it.
[[nodiscard]] Status guard_supported(const std::string& bpffs = kBpffs);

/// Whether the kernel has mseal(2) (Linux 6.10), without which the guard can rule no arguments. Whether it
/// can with it, Guard::can_rule_arguments() knows.
[[nodiscard]] bool has_mseal();

}  // namespace postern
