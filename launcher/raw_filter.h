// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <vector>

#include "broker-core/result.h"

namespace postern {

/// The program for seccomp(2) that can be read from `fd` to its end, as seccomp_export_bpf(3) writes it; `fd`
/// stays open. bubblewrap's words where it is none, which its callers look for. Whether the kernel takes it
/// is seen at the launch.
Result<std::vector<sock_filter>> read_raw_filter(int fd);

}  // namespace postern
