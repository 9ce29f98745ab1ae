// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The guard: a policy on one struct file for as long as that file lives.
 *
 *   lsm/file_ioctl            commands by list
 *   lsm/file_ioctl_compat     always refused (Linux 6.8, and stable kernels that took it; else file_ioctl
 * sees it) lsm/mmap_file             inside one window, from the saved registers lsm/file_mprotect inside the
 * same window, from the mapping lsm/file_permission       pread64 and pwrite64 inside one window, from the
 * saved registers lsm/file_receive          who may be handed the file lsm/file_free_security    the file is
 * gone, and with it every mapping: forget it iter/task_file            registration: finds the struct file
 * behind an fd of the caller
 *
 * What is decided and why stands in decide.h. Here is only where the facts come from.
 *
 * A program for every hook runs for every file of the machine, so each begins with one test on file->f_op
 * against a filter, and an unrelated file is done with after it.
 */
#include "core.h"

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "decide.h"
#include "policy.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * The key is the address of the struct file. Entries go when the file does, in file_free_security; so the
 * programs may be detached only while this map is empty, or an address could come back as another file's.
 * An entry is changed in place or not at all: since Linux 6.1 the memory of a replaced element can at once
 * become another entry's while a program still reads it.
 */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, POSTERN_MAX_FILES);
    __type(key, __u64);
    __type(value, struct postern_policy);
} files SEC(".maps");

/* Key: id of a sandbox's cgroup v2 folder; value: its level. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, POSTERN_MAX_SANDBOXES);
    __type(key, __u64);
    __type(value, __u32);
} sandboxes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct postern_pending);
} pending SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct postern_about);
} about SEC(".maps");

/* Written by the iterator alone, one registration at a time; the only global, so it is the whole of .bss. */
struct postern_kinds kinds;

/*
 * A pointer as a number: the verifier forbids shifts of a register that it knows as a pointer, and a 32-bit
 * move makes it a scalar.
 */
static __always_inline __u32 low_bits(const void* pointer) {
    __u32 low = (__u32)(__u64)pointer;
    asm volatile("%0 = %0" : "+w"(low));
    return low;
}

static __always_inline int may_be_ours(const struct file_operations* f_op) {
    return kinds.filter >> POSTERN_KIND_BIT(low_bits(f_op)) & 1;
}

/* The learned kind of a file, or NULL. */
static __always_inline const struct postern_kind* kind_of(__u64 f_op) {
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < POSTERN_MAX_KINDS; i++) {
        if (kinds.kind[i].f_op == f_op) return &kinds.kind[i];
    }
    return NULL;
}

static __always_inline int in_any_sandbox(void) {
#pragma clang loop unroll(disable)
    for (int level = 1; level <= POSTERN_MAX_CGROUP_LEVEL; level++) {
        __u64 id = bpf_get_current_ancestor_cgroup_id(level);
        /* deeper than the task's own cgroup */
        if (id == 0) break;
        const __u32* at = bpf_map_lookup_elem(&sandboxes, &id);
        if (at && *at == (__u32)level) return 1;
    }
    return 0;
}

/* What the current task is, apart from the policy. */
static __always_inline __u32 task_facts(const struct task_struct* task) {
    __u32 facts = 0;

    /*
     * TS_COMPAT is what the kernel itself asks (in_ia32_syscall). None of the i386 numbers 9, 16, 17 and 18
     * (link, lchown16, break, oldstat) reaches a hook of a file, and x32 numbers have bit 30 set, so the
     * numbers alone would do; this does not depend on it.
     */
    if (!bpf_core_field_exists(task->thread_info.status) || task->thread_info.status & TS_COMPAT) {
        facts |= POSTERN_TASK_COMPAT;
    }
    if (task->flags & (PF_KTHREAD | PF_IO_WORKER)) facts |= POSTERN_TASK_KERNEL;
    if (bpf_core_field_exists(task->io_uring) && task->io_uring) facts |= POSTERN_TASK_IO_URING;
    return facts;
}

/* The system call in progress. */
static __always_inline void read_syscall(struct postern_call* call) {
    struct task_struct* task = bpf_get_current_task_btf();
    const struct pt_regs* regs = (const struct pt_regs*)bpf_task_pt_regs(task);

    call->task = task_facts(task);
    call->nr = regs->orig_ax;
    call->args[0] = regs->di;
    call->args[1] = regs->si;
    call->args[2] = regs->dx;
    call->args[3] = regs->r10;
    call->args[4] = regs->r8;
    call->args[5] = regs->r9;
}

static __always_inline int verdict_on(struct postern_policy* policy, int verdict) {
    if (verdict == POSTERN_ALLOW) return 0;
    __sync_fetch_and_add(&policy->denied, 1);
    /* A constant: since 6.12 the verifier wants to see that it lies in [-4095, 0]. */
    return -EPERM;
}

/*
 * For a file that passed the filter and has no policy. A second file of a guarded device, its group or its
 * container would be a way around the policy, so inside a sandbox such kinds are refused altogether.
 */
static __always_inline int verdict_on_unregistered(const struct file_operations* f_op) {
    const struct postern_kind* kind = kind_of((__u64)f_op);
    return kind && kind->exclusive && in_any_sandbox() ? -EPERM : 0;
}

/* `ret` is what a BPF program before this one said, and its refusal stands. */
SEC("lsm/file_ioctl")
int BPF_PROG(on_ioctl, struct file* file, unsigned int cmd, unsigned long arg, int ret) {
    if (ret) return -EPERM;
    if (!may_be_ours(file->f_op)) return 0;

    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return verdict_on_unregistered(file->f_op);

    struct postern_call call = {.hook = POSTERN_HOOK_IOCTL, .cmd = cmd};
    read_syscall(&call);
    return verdict_on(policy, postern_decide_ioctl(policy, &call));
}

SEC("?lsm/file_ioctl_compat")
int BPF_PROG(on_ioctl_compat, struct file* file, unsigned int cmd, unsigned long arg, int ret) {
    if (ret) return -EPERM;
    if (!may_be_ours(file->f_op)) return 0;

    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return verdict_on_unregistered(file->f_op);
    return verdict_on(policy, POSTERN_DENY_COMPAT);
}

SEC("lsm/mmap_file")
int BPF_PROG(on_mmap, struct file* file, unsigned long reqprot, unsigned long prot, unsigned long flags,
             int ret) {
    if (ret) return -EPERM;
    /*
     * Anonymous mappings come with file == NULL. Kernels before 6.15 do not tell the verifier so: it takes
     * the pointer for a valid one, drops this test and would let a plain load fault. Hence the read that
     * cannot.
     */
    if (!file) return 0;
    const struct file_operations* f_op = NULL;
    if (bpf_core_read(&f_op, sizeof(f_op), &file->f_op) || !may_be_ours(f_op)) return 0;

    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return verdict_on_unregistered(f_op);

    struct postern_call call = {.hook = POSTERN_HOOK_MMAP, .reqprot = reqprot, .prot = prot, .flags = flags};
    read_syscall(&call);
    return verdict_on(policy, postern_decide_mmap(policy, &call));
}

SEC("lsm/file_mprotect")
int BPF_PROG(on_mprotect, struct vm_area_struct* vma, unsigned long reqprot, unsigned long prot, int ret) {
    if (ret) return -EPERM;
    const struct file* file = vma->vm_file;
    if (!file || !may_be_ours(file->f_op)) return 0;

    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return verdict_on_unregistered(file->f_op);

    const struct postern_call call = {.hook = POSTERN_HOOK_MPROTECT,
                                      .reqprot = reqprot,
                                      .prot = prot,
                                      .vma_pgoff = vma->vm_pgoff,
                                      .vma_length = vma->vm_end - vma->vm_start};
    return verdict_on(policy, postern_decide_mprotect(policy, &call));
}

SEC("lsm/file_permission")
int BPF_PROG(on_access, struct file* file, int mask, int ret) {
    if (ret) return -EPERM;
    if (!may_be_ours(file->f_op)) return 0;

    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return verdict_on_unregistered(file->f_op);

    struct postern_call call = {.hook = POSTERN_HOOK_ACCESS, .mask = (__u32)mask};
    read_syscall(&call);
    return verdict_on(policy, postern_decide_access(policy, &call));
}

SEC("lsm/file_receive")
int BPF_PROG(on_receive, struct file* file, int ret) {
    if (ret) return -EPERM;
    if (!may_be_ours(file->f_op)) return 0;

    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return verdict_on_unregistered(file->f_op);

    struct postern_call call = {.hook = POSTERN_HOOK_RECEIVE};
    const __u32 level = policy->cgroup_level;
    if (policy->sandbox_cgroup && level >= 1 && level <= POSTERN_MAX_CGROUP_LEVEL &&
        bpf_get_current_ancestor_cgroup_id((int)level) == policy->sandbox_cgroup) {
        call.task |= POSTERN_TASK_IN_SANDBOX;
    }
    return verdict_on(policy, postern_decide_receive(policy, &call));
}

SEC("lsm/file_free_security")
int BPF_PROG(on_free, struct file* file) {
    if (!may_be_ours(file->f_op)) return 0;
    const __u64 key = (__u64)file;
    bpf_map_delete_elem(&files, &key);
    return 0;
}

/* 0, or -ENOSPC when too many kinds are known already. */
static __always_inline int learn_kind(const struct file_operations* operations, int exclusive) {
    const __u64 f_op = (__u64)operations;
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < POSTERN_MAX_KINDS; i++) {
        struct postern_kind* kind = &kinds.kind[i];
        if (kind->f_op && kind->f_op != f_op) continue;
        if (exclusive) kind->exclusive = 1;
        kind->f_op = f_op;
        /* Last: whoever passes the filter finds the rest in place. */
        __sync_fetch_and_or(&kinds.filter, 1ULL << POSTERN_KIND_BIT(low_bits(operations)));
        return 0;
    }
    return -ENOSPC;
}

SEC("iter/task_file")
int on_own_file(struct bpf_iter__task_file* ctx) {
    const __u32 zero = 0;
    const struct file* file = ctx->file;
    const struct task_struct* task = ctx->task;
    struct postern_pending* request = bpf_map_lookup_elem(&pending, &zero);

    if (!file || !task || !request) return 0;
    if (request->action == POSTERN_PENDING_NONE || ctx->fd != request->fd) return 0;
    /* The caller's own table of fds, not that of a thread of its that has another. */
    if (task->files != bpf_get_current_task_btf()->files) return 0;

    const __u64 key = (__u64)file;
    const int exclusive =
        request->action == POSTERN_PENDING_LEARN || request->policy.flags & POSTERN_POLICY_EXCLUSIVE;
    request->seen++;
    request->file = key;

    /* The kind before the policy: once the policy is there, so is the way to it. */
    long error = learn_kind(file->f_op, exclusive);
    if (!error && request->action == POSTERN_PENDING_REGISTER) {
        error = bpf_map_update_elem(&files, &key, &request->policy, BPF_NOEXIST);
    }
    if (error) request->error = (__u32)-error;
    return 0;
}
