// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/result.h"

namespace postern {

/// Exit status of `postern run` and `pool` where postern itself failed.
inline constexpr int kLaunchFailed = 125;
/// Exit status of the other commands where they failed.
inline constexpr int kFailed = 1;

/// Prints "postern: …" on stderr and returns `status`.
int report(const Error& error, int status);

}  // namespace postern
