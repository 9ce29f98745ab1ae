// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "broker-core/result.h"

namespace postern {

inline constexpr const char* kBpffs = "/sys/fs/bpf";

/// Whether this kernel and this process can have the guard, found out without loading it. The error names the
/// first thing that is missing and how to mend it.
[[nodiscard]] Status guard_supported(const std::string& bpffs = kBpffs);

}  // namespace postern
