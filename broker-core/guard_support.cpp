// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_support.h"

#include <linux/capability.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "broker-core/file.h"

namespace postern {
namespace {

Status check_capabilities() {
    POSTERN_ASSIGN(const std::string status, read_file("/proc/self/status", 1 << 16));
    const size_t at = status.find("\nCapEff:");
    const uint64_t effective =
        at == std::string::npos ? 0
                                : std::strtoull(status.c_str() + at + sizeof("\nCapEff:") - 1, nullptr, 16);
    const auto has = [&](unsigned capability) { return (effective >> capability & 1) != 0; };
    // CAP_SYS_ADMIN: pinned programs and foreign cgroups are opened by it, and iterators want it as well.
    if (has(CAP_BPF) && has(CAP_PERFMON) && has(CAP_SYS_ADMIN)) return {};
    return fail(
        "the guard: this process may not load BPF LSM programs (CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN); run "
        "postern as root");
}

Status check_lsm() {
    const auto list = read_file("/sys/kernel/security/lsm", 4096);
    if (!list) {
        return fail(
            "the guard: the active LSMs cannot be read from /sys/kernel/security/lsm; mount -t securityfs "
            "securityfs /sys/kernel/security");
    }
    const std::string lsm = list->substr(0, list->find('\n'));
    if (("," + lsm + ",").find(",bpf,") != std::string::npos) return {};
    return fail(
        "the guard: \"bpf\" is not among the active LSMs ({}); boot with the kernel argument lsm={}{}bpf",
        lsm, lsm, lsm.empty() ? "" : ",");
}

}  // namespace

Status guard_supported(const std::string& bpffs) {
    POSTERN_TRY(check_capabilities());
    if (::access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
        return fail(
            "the guard: this kernel has no type information in /sys/kernel/btf/vmlinux; boot one that is "
            "built with CONFIG_DEBUG_INFO_BTF, as Debian's are");
    }
    POSTERN_TRY(check_lsm());
    struct statfs where {};
    if (::statfs(bpffs.c_str(), &where) != 0 || where.f_type != BPF_FS_MAGIC) {
        return fail("the guard: {} is not a bpffs; mount -t bpf bpf {}", bpffs, bpffs);
    }
    return {};
}

bool has_mseal() {
    constexpr long kMseal = 462;
    // An unaligned address is EINVAL where the call exists.
    return ::syscall(kMseal, 1UL, 0UL, 0UL) == -1 && errno != ENOSYS;
}

}  // namespace postern
