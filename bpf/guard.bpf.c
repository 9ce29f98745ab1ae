// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The guard: a policy on one struct file for as long as that file lives.
 *
 * - lsm/file_ioctl: commands by list, and by rules on an argument block that nobody can change
 * - lsm/file_ioctl_compat: always refused (Linux 6.8, and stable kernels that took it; else file_ioctl sees
 * it)
 * - lsm/uring_cmd: always refused: io_uring's way to a driver, of which no other hook hears
 * - lsm/mmap_file: inside one window, from the saved registers
 * - lsm/file_mprotect: inside the same window, from the mapping
 * - lsm/file_permission: pread64 and pwrite64 inside one window, from the saved registers
 * - lsm/file_receive: who may be handed the file
 * - lsm/file_free_security: the file is gone, and with it every mapping: forget it
 * - lsm/ptrace_access_check: nobody in a sandbox looks into an owner of devices
 * - iter/task_file: registration, finds the struct file behind an fd of the caller
 * - iter/task_vma: whether a shared file is still mapped
 * - syscall: revocation
 *
 * What is decided and why stands in decide.h. Here is only where the facts come from.
 *
 * A program for every hook runs for every file of the machine, so each is one test of file->f_op against a
 * filter, and all else is in a function of its own: what that needs of registers and stack, an unrelated file
 * does not pay for.
 *
 * The programs take no look at what a BPF program before them said: once one refuses, the trampoline runs
 * none of the others (arch/x86/net/bpf_jit_comp.c, invoke_bpf_mod_ret).
 */
#include "core.h"

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/*
 * A function that is not static is verified once a program, whatever calls it, and for all that its arguments
 * could be: pointers are to be tested in it, and of what it returns nothing is known. The others are followed
 * anew from each call and each state.
 */
#define POSTERN_ONCE __noinline
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

/* Files that must not be reached past their registered ones; see POSTERN_POLICY_ONLY_WAY. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, POSTERN_MAX_FILES);
    __type(key, struct postern_only_way);
    __type(value, __u64);
} only_ways SEC(".maps");

/* What holds for a sandbox on a file that is shared; see POSTERN_POLICY_SHARED. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, POSTERN_MAX_SHARES);
    __type(key, struct postern_share);
    __type(value, struct postern_policy);
} shares SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct postern_owner);
} owners SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct postern_search);
} search SEC(".maps");

/* Who hears of refusals: each listener makes its own ring buffer and puts it into its slot. */
struct ring {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, POSTERN_EVENTS_SIZE);
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, POSTERN_MAX_LISTENERS);
    __uint(key_size, sizeof(__u32));
    __array(values, struct ring);
} rings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, POSTERN_MAX_LISTENERS);
    __type(key, __u32);
    __type(value, struct postern_listener);
} listeners SEC(".maps");

/* Set before the programs are loaded: the verifier knows that on_mmap's file may be NULL (Linux 6.15). */
const volatile __u32 knows_null = 0;

/* Written by the iterator alone, one registration at a time; the only global variable, so it is the whole of
 * .bss. */
struct postern_state state;

static __always_inline long postern_fetch(void* into, __u32 length, __u64 address) {
    return bpf_probe_read_user(into, length, (const void*)address);
}

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
    return state.kinds.filter >> POSTERN_KIND_BIT(low_bits(f_op)) & 1;
}

/*
 * Whether a file's kind was learned, and as an exclusive one. Not which one it is: a verifier would follow
 * the rest of the program for each of them.
 */
static __always_inline int is_known(__u64 f_op, __u64* exclusive) {
    int known = 0;
    *exclusive = 0;
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < POSTERN_MAX_KINDS; i++) {
        if (state.kinds.kind[i].f_op != f_op) continue;
        known = 1;
        *exclusive = state.kinds.kind[i].exclusive;
    }
    return known;
}

/* See postern_only_way. */
static __always_inline __u64 identity_of(const struct inode* inode) {
    return (inode->i_mode & S_IFMT) == S_IFCHR ? inode->i_rdev : (__u64)inode;
}

/* A file that is not registered. In memory, where a verifier lets a pointer be a number. */
struct stray {
    __u64 f_op;
    __u64 inode; /* see postern_only_way */
    __u64 flags; /* answer: POSTERN_POLICY_EXCLUSIVE, or 0 */
};

/*
 * 0 if the current task may use this file although it is not registered, else the id of the cgroup of the
 * sandbox because of which it may not.
 */
POSTERN_ONCE __u64 stray_in(struct stray* file) {
    __u64 exclusive = 0;
    if (!file) return ~(__u64)0;
    if (!is_known(file->f_op, &exclusive)) return 0;
    const __u64 inode = file->inode;
    file->flags = exclusive ? POSTERN_POLICY_EXCLUSIVE : 0;
#pragma clang loop unroll(disable)
    for (int level = 1; level <= POSTERN_MAX_CGROUP_LEVEL; level++) {
        struct postern_only_way way = {.cgroup = bpf_get_current_ancestor_cgroup_id(level), .inode = inode};
        /* deeper than the task's own cgroup */
        if (way.cgroup == 0) break;
        const __u32* at = bpf_map_lookup_elem(&sandboxes, &way.cgroup);
        if (!at || *at != (__u32)level) continue;
        if (exclusive) return way.cgroup;
        const __u64* registered = bpf_map_lookup_elem(&only_ways, &way);
        if (registered && *registered) return way.cgroup;
    }
    return 0;
}

/*
 * Whether the current task's process owns the files with this token, or is a program that the owner runs for
 * them, or started by one.
 */
POSTERN_ONCE int is_owner(__u64 token) {
    const struct task_struct* leader = bpf_get_current_task_btf()->group_leader;
    for (int up = 0; up < POSTERN_MAX_ANCESTORS; up++) {
        const struct postern_owner* owner = bpf_task_storage_get(&owners, (void*)leader, 0, 0);
        if (owner && owner->token == token) {
            if (owner->flags & POSTERN_OWNER_PROGRAM) return 1;
            return up == 0 && owner->execed == leader->self_exec_id;
        }
        leader = leader->real_parent->group_leader;
    }
    return 0;
}

/* The id of the innermost sandbox that the current task is in and that has a policy of its own on this shared
 * file. */
POSTERN_ONCE __u64 innermost_share(__u64 serial) {
    struct postern_share key = {.serial = serial};
    __u64 innermost = 0;
#pragma clang loop unroll(disable)
    for (int level = 1; level <= POSTERN_MAX_CGROUP_LEVEL; level++) {
        key.cgroup = bpf_get_current_ancestor_cgroup_id(level);
        if (key.cgroup == 0) break;
        if (bpf_map_lookup_elem(&shares, &key)) innermost = key.cgroup;
    }
    return innermost;
}

/* What holds for the current task on a shared file: its sandbox's policy, or the file's own. */
static __always_inline struct postern_policy* share_of(struct postern_policy* shared) {
    const struct postern_share key = {.serial = shared->serial, .cgroup = innermost_share(shared->serial)};
    struct postern_policy* share = bpf_map_lookup_elem(&shares, &key);
    return share ? share : shared;
}

static __always_inline int is_shared(const struct postern_policy* policy) {
    return (policy->flags & POSTERN_POLICY_SHARED) != 0;
}

/* The id of the innermost sandbox that the current task is in; 0: none. */
POSTERN_ONCE __u64 current_sandbox(void) {
    __u64 found = 0;
#pragma clang loop unroll(disable)
    for (int level = 1; level <= POSTERN_MAX_CGROUP_LEVEL; level++) {
        const __u64 cgroup = bpf_get_current_ancestor_cgroup_id(level);
        if (cgroup == 0) break;
        const __u32* at = bpf_map_lookup_elem(&sandboxes, &cgroup);
        if (at && *at == (__u32)level) found = cgroup;
    }
    return found;
}

/* What the current task is, apart from the policy. */
static __always_inline __u32 task_facts(const struct task_struct* task, int with_io_uring) {
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
    if (with_io_uring && bpf_core_field_exists(task->io_uring) && task->io_uring)
        facts |= POSTERN_TASK_IO_URING;
    return facts;
}

/* Whether the current task may administer the machine, and not only a user namespace. */
static __always_inline int is_trusted(void) {
    const struct cred* cred = BPF_CORE_READ(bpf_get_current_task_btf(), cred);
    const struct user_namespace* ns = BPF_CORE_READ(cred, user_ns);
    __u32 capabilities = 0;
    int level = -1;
    if (bpf_core_read(&capabilities, sizeof(capabilities), &cred->cap_effective) ||
        bpf_core_read(&level, sizeof(level), &ns->level)) {
        return 0;
    }
    return level == 0 && capabilities >> CAP_SYS_ADMIN & 1;
}

/* The system call in progress. */
static __always_inline void read_syscall(struct postern_call* call) {
    struct task_struct* task = bpf_get_current_task_btf();
    const struct pt_regs* regs = (const struct pt_regs*)bpf_task_pt_regs(task);

    call->task = task_facts(task, 1);
    call->nr = regs->orig_ax;
    call->args[0] = regs->di;
    call->args[1] = regs->si;
    call->args[2] = regs->dx;
    call->args[3] = regs->r10;
    call->args[4] = regs->r8;
    call->args[5] = regs->r9;
}

/* Is there still room for this one among the refusals that are told in this period? */
static __always_inline int may_tell(__u64 now, __u64* period, __u32* told, __u32* untold) {
    const __u64 current = now >> POSTERN_PERIOD_SHIFT;
    /* Two CPUs at once may tell a few more: no harm. */
    if (*period != current) {
        *period = current;
        *told = 0;
    }
    if (*told >= POSTERN_EVENTS_PER_PERIOD) {
        __sync_fetch_and_add(untold, 1);
        return 0;
    }
    __sync_fetch_and_add(told, 1);
    return 1;
}

/* Tells all listeners of a refusal. `policy` is NULL for a file that has none. */
POSTERN_ONCE int tell(struct postern_policy* policy, const struct postern_call* call, int verdict,
                      __u64 sandbox, __u32 flags) {
    if (!call) return 0;
    const struct task_struct* task = bpf_get_current_task_btf();
    struct postern_event event = {.time = bpf_ktime_get_boot_ns(), .hook = call->hook, .verdict = verdict};

    if (policy) {
        if (!may_tell(event.time, &policy->period, &policy->told, &policy->untold)) return 0;
        event.untold = __sync_lock_test_and_set(&policy->untold, 0);
        __builtin_memcpy(event.grant, policy->grant, sizeof(event.grant));
        event.file = (__u16)policy->file;
    } else {
        if (!may_tell(event.time, &state.stray_period, &state.strays_told, &state.strays_untold)) return 0;
        event.untold = __sync_lock_test_and_set(&state.strays_untold, 0);
    }
    event.sandbox = sandbox;
    event.flags = (__u16)flags;
    event.pid = (__u32)task->tgid;
    event.tid = (__u32)task->pid;
    bpf_get_current_comm(event.comm, sizeof(event.comm));
    event.cmd = call->cmd;
    event.nr = call->nr;
    if (call->hook == POSTERN_HOOK_MMAP) {
        event.offset = call->args[5];
        event.length = call->args[1];
        event.access = call->reqprot | call->prot;
    } else if (call->hook == POSTERN_HOOK_MPROTECT) {
        event.offset = call->vma_pgoff * POSTERN_PAGE_SIZE;
        event.length = call->vma_length;
        event.access = call->reqprot | call->prot;
    } else if (call->hook == POSTERN_HOOK_ACCESS) {
        event.offset = call->args[3];
        event.length = call->args[2];
        event.access = call->mask;
    } else if (call->hook == POSTERN_HOOK_IOCTL && call->arg) {
        /* For people to read. What was decided was read from where it cannot change. */
        if (!bpf_probe_read_user(event.block, sizeof(event.block), (const void*)call->arg)) {
            event.block_length = sizeof(event.block);
        } else if (!bpf_probe_read_user(event.block, 16, (const void*)call->arg)) {
            event.block_length = 16;
        }
    }
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < POSTERN_MAX_LISTENERS; i++) {
        const __u32 slot = i;
        struct postern_listener* listener = bpf_map_lookup_elem(&listeners, &slot);
        if (!listener || !listener->active) continue;
        if (listener->sandbox && listener->sandbox != event.sandbox) continue;
        void* ring = bpf_map_lookup_elem(&rings, &slot);
        if (!ring) continue;
        if (bpf_ringbuf_output(ring, &event, sizeof(event), 0)) __sync_fetch_and_add(&listener->lost, 1);
    }
    return 0;
}

/* Whether the current process only tries what is refused; see POSTERN_OWNER_PROOF. */
static __always_inline int is_proof(void) {
    const struct task_struct* leader = bpf_get_current_task_btf()->group_leader;
    const struct postern_owner* owner = bpf_task_storage_get(&owners, (void*)leader, 0, 0);
    return owner && owner->flags & POSTERN_OWNER_PROOF;
}

/* What the hook returns. Constants: since 6.12 the verifier wants to see that they lie in [-4095, 0]. */
static __always_inline int verdict_on(struct postern_policy* policy, const struct postern_call* call,
                                      int verdict) {
    if (verdict == POSTERN_ALLOW) return 0;
    if (verdict == POSTERN_TRY_AGAIN) return -EAGAIN;
    if (verdict == POSTERN_RESTRICTED) return -EALREADY;
    if (verdict == POSTERN_BAD_RESTRICTION) return -EINVAL;
    if (is_proof()) return -EPERM;
    __sync_fetch_and_add(&policy->denied, 1);
    tell(policy, call, verdict, policy->sandbox_cgroup, policy->flags);
    return -EPERM;
}

/*
 * For a file that passed the filter and has no policy. A second file of a guarded device, its group or its
 * container would be a way around the policy, so inside a sandbox such kinds are refused altogether; and so
 * is, inside its own sandbox, the same inode or device opened once more.
 */
static __always_inline int verdict_on_unregistered(const struct file_operations* f_op, __u64 inode,
                                                   const struct postern_call* call) {
    struct stray file = {.f_op = (__u64)f_op, .inode = inode};
    const __u64 sandbox = stray_in(&file);
    if (!sandbox) return 0;
    __sync_fetch_and_add(&state.strays_denied, 1);
    tell(NULL, call, POSTERN_DENY_STRAY, sandbox, (__u32)file.flags);
    return -EPERM;
}

struct seal_look {
    __u64 address;
    __u64 sealed; /* answer: bytes from the address on that cannot change any more */
};

/*
 * What makes memory unchangeable: a memfd that can be neither written nor shrunk (cut off and grown again it
 * would hold zeros), seen through a shared mapping that is not writable and cannot be made so, and that
 * mseal(2) keeps in its place.
 */
static long look_at_seals(struct task_struct* task, struct vm_area_struct* vma, struct seal_look* look) {
    const unsigned long flags = vma->vm_flags;
    const unsigned int seals_wanted = F_SEAL_WRITE | F_SEAL_SHRINK;
    unsigned int seals = 0;

    if ((flags & (VM_SHARED | VM_WRITE | VM_MAYWRITE)) != VM_SHARED || !(flags & state.sealed_flag)) return 0;
    const struct file* file = vma->vm_file;
    if (!file || (__u64)file->f_op != state.memfd_f_op) return 0;
    const __u64 info = (__u64)file->f_inode - bpf_core_field_offset(struct shmem_inode_info, vfs_inode);
    if (bpf_probe_read_kernel(&seals, sizeof(seals),
                              (const void*)(info + bpf_core_field_offset(struct shmem_inode_info, seals)))) {
        return 0;
    }
    if ((seals & seals_wanted) != seals_wanted) return 0;
    const __u64 end = vma->vm_end;
    if (look->address < vma->vm_start || look->address >= end) return 0;
    look->sealed = end - look->address;
    return 0;
}

/* The hook's arguments, as the program was called with them. */
#define ARG(ctx, type, n) ((type)(ctx)[n])

/*
 * An ioctl with rules. POSTERN_TRY_AGAIN also while the mappings are being changed; that nothing is mapped
 * there (-ENOENT) is an answer as well.
 */
POSTERN_ONCE int decide_ruled_ioctl(__u64 address, const struct postern_policy* policy,
                                    const struct postern_ioctl_entry* rules) {
    struct seal_look look = {.address = address};
    if (!policy || !rules) return POSTERN_DENY_ARGUMENT;
    if (bpf_find_vma(bpf_get_current_task_btf(), look.address, look_at_seals, &look, 0) == -EBUSY) {
        return POSTERN_TRY_AGAIN;
    }
    return postern_decide_block(policy, rules, look.address, look.sealed);
}

/* See postern_restrict(). */
POSTERN_ONCE int narrow(struct postern_policy* policy, __u64 request) {
    return policy ? postern_restrict(policy, request) : POSTERN_BAD_RESTRICTION;
}

/* An ioctl that is not simply allowed: a request to narrow, a refusal. */
static __noinline int rule_rare_ioctl(unsigned long long* ctx, struct postern_policy* policy, int verdict) {
    struct postern_call call = {
        .hook = POSTERN_HOOK_IOCTL, .cmd = ARG(ctx, __u32, 1), .arg = ARG(ctx, __u64, 2)};

    read_syscall(&call);
    if (verdict == POSTERN_DENY_COMMAND && call.cmd == POSTERN_IOC_RESTRICT) {
        verdict = narrow(policy, call.arg);
    }
    return verdict_on(policy, &call, verdict);
}

static __noinline int rule_stray_ioctl(unsigned long long* ctx) {
    const struct file* file = ARG(ctx, const struct file*, 0);
    struct postern_call call = {
        .hook = POSTERN_HOOK_IOCTL, .cmd = ARG(ctx, __u32, 1), .arg = ARG(ctx, __u64, 2)};
    read_syscall(&call);
    return verdict_on_unregistered(file->f_op, identity_of(file->f_inode), &call);
}

/* On a shared file; apart, for the others are most. */
static __noinline int rule_shared_ioctl(unsigned long long* ctx, struct postern_policy* shared) {
    if (is_owner(shared->owner)) return 0;
    struct postern_policy* policy = share_of(shared);
    const struct pt_regs* regs = (const struct pt_regs*)bpf_task_pt_regs(bpf_get_current_task_btf());
    const struct postern_ioctl_entry* rules = NULL;
    int verdict = postern_decide_ioctl(policy, 0, regs->orig_ax, ARG(ctx, __u32, 1), &rules);
    if (rules) verdict = decide_ruled_ioctl(ARG(ctx, __u64, 2), policy, rules);
    return verdict == POSTERN_ALLOW ? 0 : rule_rare_ioctl(ctx, policy, verdict);
}

static __noinline int rule_ioctl(unsigned long long* ctx) {
    const __u64 key = ARG(ctx, __u64, 0);
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return rule_stray_ioctl(ctx);

    struct task_struct* task = bpf_get_current_task_btf();
    const __u32 facts = task_facts(task, 0);
    /* The same answer as below, which need not keep the task's facts any longer. */
    if (facts) {
        return rule_rare_ioctl(ctx, policy,
                               facts & POSTERN_TASK_COMPAT ? POSTERN_DENY_COMPAT : POSTERN_DENY_TASK);
    }
    const struct pt_regs* regs = (const struct pt_regs*)bpf_task_pt_regs(task);
    const struct postern_ioctl_entry* rules = NULL;
    int verdict = postern_decide_ioctl(policy, 0, regs->orig_ax, ARG(ctx, __u32, 1), &rules);
    if (rules) verdict = decide_ruled_ioctl(ARG(ctx, __u64, 2), policy, rules);
    if (verdict == POSTERN_ALLOW) return 0;
    if (verdict == POSTERN_DENY_SHARE) return rule_shared_ioctl(ctx, policy);
    return rule_rare_ioctl(ctx, policy, verdict);
}

SEC("lsm/file_ioctl")
int BPF_PROG(on_ioctl, struct file* file, unsigned int cmd, unsigned long arg) {
    return may_be_ours(file->f_op) ? rule_ioctl(ctx) : 0;
}

static __noinline int rule_ioctl_compat(unsigned long long* ctx) {
    const struct file* file = ARG(ctx, const struct file*, 0);
    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    const struct postern_call call = {.hook = POSTERN_HOOK_IOCTL_COMPAT, .cmd = ARG(ctx, __u32, 1)};
    if (!policy) return verdict_on_unregistered(file->f_op, identity_of(file->f_inode), &call);
    if (is_shared(policy)) {
        if (is_owner(policy->owner)) return 0;
        policy = share_of(policy);
    }
    return verdict_on(policy, &call, POSTERN_DENY_COMPAT);
}

SEC("?lsm/file_ioctl_compat")
int BPF_PROG(on_ioctl_compat, struct file* file, unsigned int cmd, unsigned long arg) {
    return may_be_ours(file->f_op) ? rule_ioctl_compat(ctx) : 0;
}

static __noinline int rule_uring_cmd(unsigned long long* ctx) {
    const struct io_uring_cmd* command = ARG(ctx, const struct io_uring_cmd*, 0);
    const struct file* file = command->file;
    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    struct postern_call call = {.hook = POSTERN_HOOK_IOCTL, .cmd = command->cmd_op};
    read_syscall(&call);
    if (!policy) return verdict_on_unregistered(file->f_op, identity_of(file->f_inode), &call);
    if (is_shared(policy)) {
        if (is_owner(policy->owner)) return 0;
        policy = share_of(policy);
    }
    return verdict_on(policy, &call, POSTERN_DENY_SYSCALL);
}

/* Linux 6.0: a command of IORING_OP_URING_CMD, in whatever task io_uring runs it. */
SEC("?lsm/uring_cmd")
int BPF_PROG(on_uring_cmd, struct io_uring_cmd* command) {
    return may_be_ours(command->file->f_op) ? rule_uring_cmd(ctx) : 0;
}

static __noinline int rule_mmap(unsigned long long* ctx) {
    const struct file* file = ARG(ctx, const struct file*, 0);
    const __u64 key = (__u64)file;
    const struct file_operations* f_op = NULL;
    const struct inode* inode = NULL;
    unsigned short mode = 0;
    unsigned int device = 0;
    /* Where this test is dropped, see on_mmap, the file may be NULL, and these reads do not fault. */
    if (!file) return 0;
    if (bpf_core_read(&f_op, sizeof(f_op), &file->f_op) || !may_be_ours(f_op)) return 0;
    if (bpf_core_read(&inode, sizeof(inode), &file->f_inode)) return -EPERM;

    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    struct postern_call call = {.hook = POSTERN_HOOK_MMAP,
                                .reqprot = ARG(ctx, __u64, 1),
                                .prot = ARG(ctx, __u64, 2),
                                .flags = ARG(ctx, __u64, 3)};
    read_syscall(&call);
    if (policy) {
        if (is_shared(policy)) {
            if (is_owner(policy->owner)) return 0;
            policy = share_of(policy);
        }
        return verdict_on(policy, &call, postern_decide_in(POSTERN_HOOK_MMAP, policy, &call));
    }
    /* identity_of() in reads that do not fault */
    if (bpf_core_read(&mode, sizeof(mode), &inode->i_mode) ||
        bpf_core_read(&device, sizeof(device), &inode->i_rdev)) {
        return -EPERM;
    }
    return verdict_on_unregistered(f_op, (mode & S_IFMT) == S_IFCHR ? device : (__u64)inode, &call);
}

SEC("lsm/mmap_file")
int BPF_PROG(on_mmap, struct file* file, unsigned long reqprot, unsigned long prot, unsigned long flags) {
    /*
     * Anonymous mappings come with file == NULL. Kernels before 6.15 do not tell the verifier so: it takes
     * the pointer for a valid one, drops the first test and would let a plain load fault. The second it
     * cannot drop, since a number is compared; what passes for NULL there goes the way that cannot fault.
     */
    if (!file) return 0;
    if (!knows_null && !low_bits(file)) return rule_mmap(ctx);
    return may_be_ours(file->f_op) ? rule_mmap(ctx) : 0;
}

static __noinline int rule_mprotect(unsigned long long* ctx) {
    const struct vm_area_struct* vma = ARG(ctx, const struct vm_area_struct*, 0);
    const struct file* file = vma->vm_file;
    if (!file) return 0;
    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    const struct postern_call call = {.hook = POSTERN_HOOK_MPROTECT,
                                      .reqprot = ARG(ctx, __u64, 1),
                                      .prot = ARG(ctx, __u64, 2),
                                      .vma_pgoff = vma->vm_pgoff,
                                      .vma_length = vma->vm_end - vma->vm_start};
    if (!policy) return verdict_on_unregistered(file->f_op, identity_of(file->f_inode), &call);
    if (is_shared(policy)) {
        if (is_owner(policy->owner)) return 0;
        policy = share_of(policy);
    }
    return verdict_on(policy, &call, postern_decide_in(POSTERN_HOOK_MPROTECT, policy, &call));
}

SEC("lsm/file_mprotect")
int BPF_PROG(on_mprotect, struct vm_area_struct* vma, unsigned long reqprot, unsigned long prot) {
    const struct file* file = vma->vm_file;
    return file && may_be_ours(file->f_op) ? rule_mprotect(ctx) : 0;
}

static __noinline int rule_access(unsigned long long* ctx) {
    const struct file* file = ARG(ctx, const struct file*, 0);
    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    struct postern_call call = {.hook = POSTERN_HOOK_ACCESS, .mask = ARG(ctx, __u32, 1)};
    read_syscall(&call);
    if (!policy) return verdict_on_unregistered(file->f_op, identity_of(file->f_inode), &call);
    if (is_shared(policy)) {
        if (is_owner(policy->owner)) return 0;
        policy = share_of(policy);
    }
    return verdict_on(policy, &call, postern_decide_in(POSTERN_HOOK_ACCESS, policy, &call));
}

SEC("lsm/file_permission")
int BPF_PROG(on_access, struct file* file, int mask) {
    return may_be_ours(file->f_op) ? rule_access(ctx) : 0;
}

static __noinline int rule_receive(unsigned long long* ctx) {
    const struct file* file = ARG(ctx, const struct file*, 0);
    const __u64 key = (__u64)file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    struct postern_call call = {.hook = POSTERN_HOOK_RECEIVE};
    if (!policy) return verdict_on_unregistered(file->f_op, identity_of(file->f_inode), &call);
    if (is_shared(policy)) {
        if (is_owner(policy->owner)) return 0;
        policy = share_of(policy);
    }
    if (is_shared(policy)) {
        if (current_sandbox()) call.task |= POSTERN_TASK_IN_SANDBOX;
        if (is_trusted()) call.task |= POSTERN_TASK_TRUSTED;
        return verdict_on(policy, &call, postern_decide_in(POSTERN_HOOK_RECEIVE, policy, &call));
    }
    const __u32 level = policy->cgroup_level;
    if (policy->sandbox_cgroup && level >= 1 && level <= POSTERN_MAX_CGROUP_LEVEL &&
        bpf_get_current_ancestor_cgroup_id((int)level) == policy->sandbox_cgroup) {
        call.task |= POSTERN_TASK_IN_SANDBOX;
    }
    return verdict_on(policy, &call, postern_decide_in(POSTERN_HOOK_RECEIVE, policy, &call));
}

SEC("lsm/file_receive")
int BPF_PROG(on_receive, struct file* file) {
    return may_be_ours(file->f_op) ? rule_receive(ctx) : 0;
}

/* Whether a process has what an owner has: it is one, is marked as its child, is or comes from a program of
 * its, or comes from it and has executed nothing since. */
static __always_inline int has_owners_files(const struct task_struct* leader) {
    const __u64 executed = leader->self_exec_id;
    for (int up = 0; up < POSTERN_MAX_ANCESTORS; up++) {
        const struct postern_owner* owner = bpf_task_storage_get(&owners, (void*)leader, 0, 0);
        if (owner && up == 0 && (owner->token || owner->flags)) return 1;
        if (owner && owner->flags & POSTERN_OWNER_PROGRAM) return 1;
        if (owner && owner->token && owner->execed == executed) return 1;
        leader = leader->real_parent->group_leader;
    }
    return 0;
}

/*
 * An owner has what its clients have not. Whoever can trace it can take its files (pidfd_getfd(2)), write its
 * memory, or let it make calls; Yama and pid namespaces may be off.
 */
SEC("lsm/ptrace_access_check")
int BPF_PROG(on_trace, struct task_struct* child, unsigned int mode) {
    const struct postern_call call = {.hook = POSTERN_HOOK_TRACE};
    if (!has_owners_files(child->group_leader)) return 0;
    const __u64 sandbox = current_sandbox();
    if (!sandbox) return 0;
    /* Who reads /proc/PID/stat of all, as ps does, is not told what it may not see. */
    if (mode & PTRACE_MODE_NOAUDIT) return -EPERM;
    __sync_fetch_and_add(&state.strays_denied, 1);
    tell(NULL, &call, POSTERN_DENY_TRACE, sandbox, 0);
    return -EPERM;
}

SEC("lsm/file_free_security")
int BPF_PROG(on_free, struct file* file) {
    /* A device that is gone has other file_operations than it had: __tty_hangup(), snd_card_disconnect(). */
    if (!may_be_ours(file->f_op) && !state.any_kind) return 0;
    const __u64 key = (__u64)file;
    const struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return 0;
    if (policy->flags & POSTERN_POLICY_ONLY_WAY) {
        /* Not from the file, whose inode may be gone already. */
        const struct postern_only_way way = {.cgroup = policy->sandbox_cgroup, .inode = policy->inode};
        __u64* registered = bpf_map_lookup_elem(&only_ways, &way);
        /* Stays at 0 until its sandbox is removed: deleting it here could lose a registration beside it. */
        if (registered) __sync_fetch_and_add(registered, -1);
    }
    bpf_map_delete_elem(&files, &key);
    return 0;
}

/* 0, or -ENOSPC when too many kinds are known already. */
static __always_inline int learn_kind(const struct file_operations* operations, int exclusive) {
    const __u64 f_op = (__u64)operations;
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < POSTERN_MAX_KINDS; i++) {
        struct postern_kind* kind = &state.kinds.kind[i];
        if (kind->f_op && kind->f_op != f_op) continue;
        if (exclusive) kind->exclusive = 1;
        kind->f_op = f_op;
        /* Last: whoever passes the filter finds the rest in place. */
        __sync_fetch_and_or(&state.kinds.filter, 1ULL << POSTERN_KIND_BIT(low_bits(operations)));
        return 0;
    }
    return -ENOSPC;
}

/* One more registered file of this inode. */
static __always_inline long add_only_way(const struct postern_policy* policy, __u64 inode) {
    const struct postern_only_way way = {.cgroup = policy->sandbox_cgroup, .inode = inode};
    const __u64 one = 1;
    __u64* registered = bpf_map_lookup_elem(&only_ways, &way);
    if (!registered) return bpf_map_update_elem(&only_ways, &way, &one, BPF_NOEXIST);
    __sync_fetch_and_add(registered, 1);
    return 0;
}

struct mapping_look {
    __u64 flags;
    __u64 file;
};

static long look_at_mapping(struct task_struct* task, struct vm_area_struct* vma, struct mapping_look* look) {
    look->flags = vma->vm_flags;
    look->file = (__u64)vma->vm_file;
    return 0;
}

/* 0, or a positive errno. */
static __always_inline __u32 own(__u64 token) {
    struct task_struct* leader = bpf_get_current_task_btf()->group_leader;
    struct postern_owner* owner = bpf_task_storage_get(&owners, leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!owner) return EAGAIN;
    owner->execed = leader->self_exec_id;
    owner->flags = 0;
    owner->token = token;
    return 0;
}

/* What is asked about a file that is shared, and about who owns it. */
static __noinline __u32 share(struct postern_pending* request, __u64 key) {
    if (request->action == POSTERN_PENDING_OWN) return own(request->value);
    struct postern_policy* shared = bpf_map_lookup_elem(&files, &key);
    if (!shared || !is_shared(shared)) return EINVAL;
    if (request->action == POSTERN_PENDING_JOIN) return own(shared->owner);
    if (request->action == POSTERN_PENDING_CLAIM) {
        *(volatile __u64*)&shared->owner = request->value;
        return 0;
    }
    const struct postern_share at = {.serial = shared->serial, .cgroup = request->policy.sandbox_cgroup};
    request->policy.serial = at.serial;
    const long error = bpf_map_update_elem(&shares, &at, &request->policy, BPF_NOEXIST);
    return (__u32)-error;
}

/*
 * The kind of a file, or, of a device's node that is open as a path only (O_PATH), the kind that its driver
 * makes of it: what can be open but once must be known while somebody else has it.
 */
static __always_inline const struct file_operations* kind_of(const struct file* file) {
    if (!(file->f_mode & FMODE_PATH)) return file->f_op;
    if ((file->f_inode->i_mode & S_IFMT) != S_IFCHR) return NULL;
    return BPF_CORE_READ(file, f_inode, i_cdev, ops);
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
    const __u64 inode = identity_of(file->f_inode);
    const int exclusive =
        request->action == POSTERN_PENDING_LEARN || request->policy.flags & POSTERN_POLICY_EXCLUSIVE;
    request->seen++;
    request->file = key;

    if (request->action == POSTERN_PENDING_LOOK) {
        struct mapping_look look = {};
        const long found =
            bpf_find_vma(bpf_get_current_task_btf(), request->address, look_at_mapping, &look, 0);
        request->value = look.flags;
        if (found) {
            request->error = (__u32)-found;
        } else if (look.file != key) {
            request->error = EXDEV;
        }
        return 0;
    }
    if (request->action == POSTERN_PENDING_SEALING) {
        state.sealed_flag = request->value;
        state.memfd_f_op = (__u64)file->f_op;
        return 0;
    }

    if (request->action >= POSTERN_PENDING_OWN && request->action <= POSTERN_PENDING_SHARE) {
        request->error = share(request, key);
        return 0;
    }
    /* The kind before the policy: once the policy is there, so is the way to it. */
    const struct file_operations* kind = kind_of(file);
    long error = kind ? learn_kind(kind, exclusive) : -ENXIO;
    if (!error && request->action == POSTERN_PENDING_REGISTER) {
        request->policy.inode = inode;
        if (!(request->policy.flags & POSTERN_POLICY_EXCLUSIVE)) state.any_kind = 1;
        error = bpf_map_update_elem(&files, &key, &request->policy, BPF_NOEXIST);
        if (!error && request->policy.flags & POSTERN_POLICY_ONLY_WAY) {
            error = add_only_way(&request->policy, inode);
            if (error) bpf_map_delete_elem(&files, &key);
        }
    }
    if (error) request->error = (__u32)-error;
    return 0;
}

/* Is a place of the file mapped that one of the windows has, by anybody but who asks, the owner? Once for
 * each mapping of each task. */
SEC("iter/task_vma")
int on_mapping(struct bpf_iter__task_vma* ctx) {
    const __u32 zero = 0;
    const struct task_struct* task = ctx->task;
    const struct vm_area_struct* vma = ctx->vma;
    struct postern_search* wanted = bpf_map_lookup_elem(&search, &zero);

    /* The owner's do not count; it has a child do this, which has a copy of them. */
    const struct task_struct* self = bpf_get_current_task_btf();
    if (!task || !vma || !wanted || task->tgid == self->tgid || task->tgid == self->real_parent->tgid)
        return 0;
    if (!wanted->file || (__u64)vma->vm_file != wanted->file) return 0;
    const __u64 start = vma->vm_pgoff * POSTERN_PAGE_SIZE;
    const __u64 length = vma->vm_end - vma->vm_start;
    __u64 inside = 0;
    for (__u32 i = 0; i < POSTERN_MAX_WINDOWS; i++) {
        if (i >= wanted->n_windows) break;
        const struct postern_range* window = &wanted->windows[i];
        const __u64 size = postern_rounded_size(window);
        /* Neither ends before the other begins. */
        inside |= postern_is_sane(window) & postern_less(start, window->vma_offset + size) &
                  postern_less(window->vma_offset, start + length);
    }
    wanted->found += inside;
    return 0;
}

/* Changes the policy of a file in place, if it is (still) the grant's. */
SEC("syscall")
int on_revoke(struct postern_revocation* request) {
    const __u64 key = request->file;
    struct postern_policy* policy = bpf_map_lookup_elem(&files, &key);
    if (!policy) return 0;
    if (request->share) {
        const struct postern_share at = {.serial = policy->serial, .cgroup = request->share};
        policy = bpf_map_lookup_elem(&shares, &at);
        if (!policy) return 0;
    }
/* Unrolled: Linux 6.1 takes only constant offsets into the context. */
#pragma clang loop unroll(full)
    for (int i = 0; i < POSTERN_GRANT_SIZE; i++) {
        if (policy->grant[i] != request->grant[i]) return 0;
    }
    if (request->what == POSTERN_REVOKE) {
        __sync_fetch_and_or(&policy->flags, POSTERN_POLICY_REVOKED);
    } else if (request->what == POSTERN_MOVE) {
        /* What is reached in one way only is counted by sandbox, and a share is found by it. */
        if (policy->flags & POSTERN_POLICY_ONLY_WAY || request->share) return 0;
        /* Nobody's in between: a receiver is held to both. */
        *(volatile __u64*)&policy->sandbox_cgroup = 0;
        *(volatile __u32*)&policy->cgroup_level = request->cgroup_level;
        *(volatile __u64*)&policy->sandbox_cgroup = request->sandbox_cgroup;
    } else {
        policy->denied = 0;
        policy->period = 0;
        policy->told = 0;
        policy->untold = 0;
    }
    request->done = 1;
    return 0;
}
