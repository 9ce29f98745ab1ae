// SPDX-License-Identifier: Apache-2.0
#include "broker-core/requirements.h"

#include <linux/magic.h>
#include <sched.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "broker-core/file.h"
#include "broker-core/guard.h"
#include "broker-core/guard_support.h"
#include "broker-core/pci.h"

namespace postern {
namespace {

bool is_filesystem(const char* path, long magic) {
    struct statfs found {};
    return ::statfs(path, &found) == 0 && found.f_type == magic;
}

/// In a child: a failed unshare must not leave this process changed.
bool can_make_user_namespace() {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(::unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
    int status = 0;
    return pid > 0 && ::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool has_kernel_symbol(const std::string& symbol) {
    std::ifstream symbols("/proc/kallsyms");
    const std::string with_blank = " " + symbol;
    for (std::string line; std::getline(symbols, line);) {
        const size_t at = line.find(with_blank);
        if (at == std::string::npos) continue;
        const size_t end = at + with_blank.size();
        if (end == line.size() || line[end] == '\t') return true;
    }
    return false;
}

bool lists_bpf(const std::string& lsm) {
    std::stringstream names(lsm);
    for (std::string name; std::getline(names, name, ',');) {
        if (name == "bpf" || name == "bpf\n") return true;
    }
    return false;
}

}  // namespace

MachineFacts read_machine_facts() {
    MachineFacts facts;
    std::error_code code;
    facts.root = ::geteuid() == 0;
    utsname kernel{};
    ::uname(&kernel);
    facts.kernel_release = kernel.release;
    (void)std::sscanf(kernel.release, "%d.%d", &facts.kernel_major, &facts.kernel_minor);
    for (const auto& group : std::filesystem::directory_iterator("/sys/kernel/iommu_groups", code)) {
        (void)group;
        ++facts.iommu_groups;
    }
    facts.vfio_node = std::filesystem::exists("/dev/vfio/vfio", code);
    // The cdevs' folder is there once a device is bound; the class of their nodes from the first on.
    facts.iommufd =
        std::filesystem::exists("/dev/iommu", code) && std::filesystem::exists("/sys/class/vfio-dev", code);
    facts.vfio_pci = std::filesystem::exists("/sys/bus/pci/drivers/vfio-pci", code);
    if (const auto devices = list_pci_devices()) {
        for (const PciDevice& device : *devices) facts.vfio_devices += device.driver == "vfio-pci" ? 1U : 0U;
    }
    facts.btf = std::filesystem::exists("/sys/kernel/btf/vmlinux", code);
    if (const auto lsm = read_file("/sys/kernel/security/lsm", 4096)) {
        facts.security_fs = true;
        facts.lsm = lsm->substr(0, lsm->find('\n'));
    }
    facts.bpf_fs = is_filesystem("/sys/fs/bpf", BPF_FS_MAGIC);
    if (facts.root && facts.btf && facts.bpf_fs && lists_bpf(facts.lsm)) {
        facts.guard_tried = true;
        auto guard = Guard::acquire();
        if (!guard) {
            facts.guard_error = guard.error().message;
        } else if (auto released = guard->release(); !released) {
            facts.guard_error = released.error().message;
        }
    }
    facts.cgroup2 = is_filesystem("/sys/fs/cgroup", CGROUP2_SUPER_MAGIC) ||
                    is_filesystem("/sys/fs/cgroup/unified", CGROUP2_SUPER_MAGIC);
    facts.user_namespaces = can_make_user_namespace();
    facts.dmabuf_export = has_kernel_symbol("vfio_pci_core_feature_dma_buf");
    facts.mseal = has_mseal();
    return facts;
}

std::vector<Requirement> check_requirements(const MachineFacts& facts) {
    std::vector<Requirement> list;
    const auto add = [&](std::string id, std::string name, bool met, std::string found, std::string mend) {
        list.push_back(
            {std::move(id), std::move(name), met, false, std::move(found), met ? "" : std::move(mend)});
    };
    const auto add_optional = [&](std::string id, std::string name, bool met, std::string found,
                                  std::string mend) {
        add(std::move(id), std::move(name), met, std::move(found), std::move(mend));
        list.back().optional = true;
    };
    const bool new_enough = facts.kernel_major > 6 || (facts.kernel_major == 6 && facts.kernel_minor >= 1);
    add("kernel", "Linux 6.1 or later", new_enough, facts.kernel_release, "boot a kernel of 6.1 or later");
    add("root", "rights to own a device and load the guard", facts.root, facts.root ? "root" : "not root",
        "run postern with sudo");
    add("iommu", "an active IOMMU", facts.iommu_groups > 0,
        fmt::format("{} IOMMU groups", facts.iommu_groups),
        "switch VT-d or AMD-Vi on in the firmware and boot with intel_iommu=on or iommu=on");
    add("vfio", "VFIO", facts.vfio_node || facts.iommufd,
        facts.vfio_node && facts.iommufd ? "/dev/vfio/vfio and /dev/iommu"
        : facts.vfio_node                ? "/dev/vfio/vfio"
        : facts.iommufd                  ? "/dev/iommu"
                                         : "no /dev/vfio/vfio and no /dev/iommu",
        "modprobe vfio-pci");
    add("vfio-pci", "the vfio-pci driver", facts.vfio_pci,
        facts.vfio_pci ? fmt::format("loaded, {} devices bound", facts.vfio_devices) : "not loaded",
        "modprobe vfio-pci");
    add("btf", "BTF of the kernel", facts.btf, facts.btf ? "/sys/kernel/btf/vmlinux" : "none",
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian's are)");
    add("bpf-lsm", "\"bpf\" among the active LSMs", lists_bpf(facts.lsm),
        facts.security_fs ? facts.lsm : "no /sys/kernel/security/lsm",
        facts.security_fs ? fmt::format("boot with lsm={},bpf", facts.lsm)
                          : "mount it: mount -t securityfs securityfs /sys/kernel/security");
    add("bpffs", "a bpffs to pin the guard in", facts.bpf_fs,
        facts.bpf_fs ? "/sys/fs/bpf" : "none at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf");
    add("guard", "the guard loads", facts.guard_tried && facts.guard_error.empty(),
        !facts.guard_tried          ? "not tried: see the lines above"
        : facts.guard_error.empty() ? "loaded and let go"
                                    : facts.guard_error,
        "mend what stands above; then read the error");
    add("cgroup2", "cgroup v2", facts.cgroup2, facts.cgroup2 ? "mounted" : "not mounted",
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup");
    add("user-namespaces", "user namespaces", facts.user_namespaces,
        facts.user_namespaces ? "can be made" : "refused",
        "sysctl user.max_user_namespaces=10000; on Debian also kernel.unprivileged_userns_clone=1; on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0");
    add_optional(
        "dmabuf", "dma-bufs of BAR windows", facts.dmabuf_export,
        facts.dmabuf_export ? "vfio-pci exports them" : "not seen (Linux 6.19 or later, module loaded)",
        "nothing breaks: clients map windows through the guarded fd; boot a newer kernel for dma-bufs");
    add_optional("mseal", "mseal(2), for argument rules", facts.mseal,
                 facts.mseal ? "there" : "not there (Linux 6.10 or later)", "boot a kernel of 6.10 or later");
    return list;
}

}  // namespace postern
