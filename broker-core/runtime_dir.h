// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"

namespace postern {

/// What postern remembers between its runs until the next boot: driver bindings, the guard's lock.
inline constexpr const char* kRuntimeDir = "/run/postern";

/// Makes it, mode 0700, owned by the caller. A folder that somebody else owns is refused.
[[nodiscard]] Status make_runtime_dir();

}  // namespace postern
