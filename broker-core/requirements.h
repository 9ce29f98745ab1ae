// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker-core/result.h"

namespace postern {

/// What was found on this machine; each fact as the kernel tells it.
struct MachineFacts {
    bool root = false;
    int kernel_major = 0;
    int kernel_minor = 0;
    std::string kernel_release;
    unsigned iommu_groups = 0;
    bool vfio_node = false;     ///< /dev/vfio/vfio
    bool iommufd = false;       ///< /dev/iommu, with a kernel that gives out devices by it
    bool vfio_pci = false;      ///< the driver is registered
    unsigned vfio_devices = 0;  ///< bound to it
    bool btf = false;           ///< /sys/kernel/btf/vmlinux
    bool security_fs = false;   ///< the LSM list could be read
    std::string lsm;            ///< /sys/kernel/security/lsm
    bool bpf_fs = false;        ///< /sys/fs/bpf is a bpffs
    std::string guard_error;    ///< why the guard cannot be loaded; empty: it can, or was not tried
    bool guard_tried = false;
    bool cgroup2 = false;
    bool user_namespaces = false;
    bool dmabuf_export = false;
    bool mseal = false;
};

/// One line of `postern check`.
struct Requirement {
    std::string id;  ///< stable, for --json
    std::string name;
    bool met = false;
    bool optional = false;
    std::string found;  ///< what was seen
    std::string mend;   ///< what to do; empty where met
};

/// Reads the facts. Loads the guard for a moment where this process may.
[[nodiscard]] MachineFacts read_machine_facts();

/// Pure.
[[nodiscard]] std::vector<Requirement> check_requirements(const MachineFacts& facts);

}  // namespace postern
