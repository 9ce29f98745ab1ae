// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/probe.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace postern::hostile {

Probes all_probes() {
    Probes probes;
    for (const auto add :
         {add_ioctl_probes, add_mmap_probes, add_remap_probes, add_read_probes, add_uring_probes,
          add_compat_probes, add_passing_probes, add_memory_probes, add_node_probes, add_file_probes,
          add_process_probes, add_namespace_probes, add_mount_probes, add_bpf_probes, add_kernel_probes,
          add_identity_probes, add_network_probes, add_hygiene_probes}) {
        add(probes);
    }
    return probes;
}

bool is_sandbox_group(const std::string& group) {
    constexpr std::array<std::string_view, 8> kGuard{"ioctl",    "mmap",   "remap",   "read",
                                                     "io_uring", "compat", "passing", "memory"};
    return std::find(kGuard.begin(), kGuard.end(), group) == kGuard.end();
}

}  // namespace postern::hostile
