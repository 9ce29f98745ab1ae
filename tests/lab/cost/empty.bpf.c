/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Programs that do nothing, on the hooks that a guarded file's hot calls pass: what an attached BPF LSM
 * program costs whatever it does, and so the least that a guard can cost while it is attached.
 */
#include <linux/types.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct file;

SEC("lsm/file_ioctl")
int BPF_PROG(on_ioctl, struct file* file, unsigned int cmd, unsigned long arg, int ret) {
    return 0;
}

SEC("lsm/file_permission")
int BPF_PROG(on_access, struct file* file, int mask, int ret) {
    return 0;
}

SEC("lsm/mmap_file")
int BPF_PROG(on_mmap, struct file* file, unsigned long reqprot, unsigned long prot, unsigned long flags,
             int ret) {
    return 0;
}
