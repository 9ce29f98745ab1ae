// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * A weaker guard, for tests alone: the guard's own decision over the same rules, but it reads the argument
 * from wherever it lies and does not ask who may change it. Between this look and the kernel's copy the
 * memory is the client's.
 *
 * It rules the ioctls of one process that its policy lists, on whatever file.
 */
#include "core.h"

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "decide.h"
#include "policy.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct postern_policy);
} policies SEC(".maps");

__u32 ruled_process;

static __always_inline long postern_fetch(void* into, __u32 length, __u64 address) {
    return bpf_probe_read_user(into, length, (const void*)address);
}

SEC("lsm/file_ioctl")
int BPF_PROG(on_ioctl, struct file* file, unsigned int cmd, unsigned long arg, int ret) {
    if (ret) return -EPERM;
    if (bpf_get_current_pid_tgid() >> 32 != ruled_process) return 0;
    const __u32 zero = 0;
    const struct postern_policy* policy = bpf_map_lookup_elem(&policies, &zero);
    if (!policy) return 0;
    const struct postern_ioctl_entry* rules = NULL;
    if (postern_decide_ioctl(policy, 0, POSTERN_NR_IOCTL, cmd, &rules) != POSTERN_ALLOW || !rules) return 0;
    const __u64 sealed = ~0ULL; /* the weakness */
    return postern_decide_block(policy, rules, arg, sealed) == POSTERN_ALLOW ? 0 : -EPERM;
}
