// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/hostile/attempt.h"
#include "tests/hostile/target.h"

namespace postern::hostile {

/// A positive control: the mechanism of a probe, used on something that is permitted. Without it a refusal
/// could come from a mistake in the probe.
struct Control {
    std::string what;
    std::function<Attempt(const Target&)> run;
};

/// One way out of the sandbox or around the guard, tried once, in a process of its own.
struct Probe {
    std::string name;       ///< unique; what --only takes
    std::string group;      ///< the noun of the file it lives in
    std::string what = {};  ///< what is tried, for a reader
    std::function<Attempt(const Target&)> attempt = {};
    Control control =
        {};  ///< empty where nothing permitted uses the mechanism: then --expect allowed shows it

    /// The VFIO ioctl that a profile may grant; granted ones change sides and must work.
    std::string ioctl = {};

    /// Errnos beside EPERM, EACCES and ENOSYS that show a refusal, e.g. ENOENT of a node that is not there.
    std::vector<int> refusals = {};

    /// Errnos with which a stock kernel or this kind of device refuses everybody, and why.
    std::vector<int> inherent = {};
    std::string inherent_why = {};
    /// The kernel's own refusal comes before any security hook, so inside it is the refusal to expect.
    bool kernel_first = false;

    /// Errnos from behind the permission check: what was tried is open, only the arguments were harmless.
    std::vector<int> passed = {};

    /// It may disturb the device or later probes where it is allowed, and is tried last.
    bool destructive = false;
};

using Probes = std::vector<Probe>;

/// Each file of probes adds its own; order within a group is the order of the table.
void add_ioctl_probes(Probes& probes);
void add_mmap_probes(Probes& probes);
void add_remap_probes(Probes& probes);
void add_read_probes(Probes& probes);
void add_uring_probes(Probes& probes);
void add_compat_probes(Probes& probes);
void add_passing_probes(Probes& probes);
void add_memory_probes(Probes& probes);
void add_node_probes(Probes& probes);
void add_file_probes(Probes& probes);
void add_process_probes(Probes& probes);
void add_namespace_probes(Probes& probes);
void add_mount_probes(Probes& probes);
void add_bpf_probes(Probes& probes);
void add_kernel_probes(Probes& probes);
void add_identity_probes(Probes& probes);
void add_network_probes(Probes& probes);
void add_hygiene_probes(Probes& probes);

/// All of them, in the order of the table.
[[nodiscard]] Probes all_probes();

/// Whether `group` tests the sandbox rather than the guard: --skip-group sandbox leaves these out.
[[nodiscard]] bool is_sandbox_group(const std::string& group);

}  // namespace postern::hostile
