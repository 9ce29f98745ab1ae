/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The whole decision of the guard over plain values: compiled into the BPF program, which fills a
 * postern_call from the kernel's structures, and into native tests, which fill it as they like.
 *
 * Everything unknown is refused. No function here reads anything but its arguments, and none trusts a policy
 * to be well formed: a policy of random bytes may refuse too much but never allows a call outside all of its
 * windows. Sums are arranged so that they cannot wrap.
 */
#ifndef POSTERN_BPF_DECIDE_H
#define POSTERN_BPF_DECIDE_H

#include "policy.h"
#include "verdict.h"

/* Before a function of which a verifier is to keep what it found out. */
#ifndef POSTERN_ONCE
#define POSTERN_ONCE static inline
#endif
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* postern_call.task */
#define POSTERN_TASK_COMPAT 1u     /* the system call was entered in 32-bit mode */
#define POSTERN_TASK_KERNEL 2u     /* kernel thread or io_uring worker: it has no system call of its own */
#define POSTERN_TASK_IO_URING 4u   /* has an io_uring context */
#define POSTERN_TASK_IN_SANDBOX 8u /* in the cgroup subtree of the policy's sandbox */
#define POSTERN_TASK_TRUSTED 16u   /* has CAP_SYS_ADMIN in the first user namespace */
#define POSTERN_TASK_KNOWN 31u

/* include/uapi/asm-generic/mman-common.h, arch/x86/include/uapi/asm/mman.h */
#define POSTERN_PROT_READ 1u
#define POSTERN_PROT_WRITE 2u
#define POSTERN_MAP_TYPE 0x0fu
#define POSTERN_MAP_SHARED 0x01u
#define POSTERN_MAP_SHARED_VALIDATE 0x03u
/* FIXED, 32BIT, LOCKED, NORESERVE, POPULATE, NONBLOCK, FIXED_NOREPLACE: where and how eagerly, not what. */
#define POSTERN_MAP_HARMLESS (0x10u | 0x40u | 0x2000u | 0x4000u | 0x8000u | 0x10000u | 0x100000u)

/* One call as a hook sees it. A field that its hook does not have is 0. */
struct postern_call {
    __u32 hook;
    __u32 task;
    __u64 nr;      /* saved orig_ax */
    __u64 args[6]; /* saved rdi, rsi, rdx, r10, r8, r9 */
    __u64 reqprot; /* mmap, mprotect: as asked for */
    __u64 prot;    /* mmap, mprotect: as it will be applied */
    __u64 flags;   /* mmap: as the hook got them */
    __u64 vma_pgoff;
    __u64 vma_length;
    __u32 cmd;    /* ioctl */
    __u32 mask;   /* access */
    __u64 arg;    /* ioctl: address of the argument block, or a number */
    __u64 sealed; /* ioctl: bytes from there on that nobody can change any more; 0: none */
};

/*
 * Copies `length` bytes at `address`, which lie in a sealed block, to `into`; other than 0 if they are not in
 * memory just now. Whoever includes this says how: in the kernel a copy from user space that does not fault.
 */
static __always_inline long postern_fetch(void* into, __u32 length, __u64 address);

/* How much of a block is fetched at once. */
#define POSTERN_HEAD_SIZE 64u

/*
 * A sealed argument block. Its head is fetched in one go, for each fetch costs as much as several tests; what
 * is not in it, or would have made that one go fail, is fetched field by field. Since nobody can change the
 * block, both ways give the same.
 */
struct postern_block {
    __u64 address;
    __u64 head_length; /* 0: no head */
    __u64 head[POSTERN_HEAD_SIZE / 8];
};

/*
 * The tests on windows have no branches: a verifier follows each side of a branch through the rest of the
 * loop over the windows, which with five tests a window took Linux 6.1 half a million steps. These give 0 or
 * 1; the empty asm keeps the compiler from seeing that they are comparisons and making branches of them
 * again.
 */
static __always_inline __u64 postern_top_bit(__u64 value) {
    __asm__("" : "+r"(value));
    return value >> 63;
}

static __always_inline __u64 postern_less(__u64 a, __u64 b) {
    /* the borrow of a - b */
    return postern_top_bit((~a & b) | ((~a | b) & (a - b)));
}

static __always_inline __u64 postern_nonzero(__u64 a) {
    return postern_top_bit(a | (0 - a));
}

/* Of `flags` the one that is this power of two. */
static __always_inline __u64 postern_bit(__u64 flags, __u64 bit) {
    __asm__("" : "+r"(flags));
    return (flags & bit) / bit;
}

/* Is [start, start + length), not empty, inside [base, base + size)? All four are arbitrary; nothing wraps.
 */
static __always_inline __u64 postern_inside(__u64 start, __u64 length, __u64 base, __u64 size) {
    return postern_nonzero(length) & (postern_less(size, length) ^ 1) & (postern_less(start, base) ^ 1) &
           (postern_less(size - length, start - base) ^ 1);
}

/* 1 if the window is not empty and its last byte is within the offset space. */
static __always_inline __u64 postern_is_sane(const struct postern_range* window) {
    return postern_nonzero(window->length) &
           (postern_less(window->offset + window->length - 1, window->offset) ^ 1);
}

/* Size of a sane window rounded out to pages. 0, in which nothing lies, if that is all of 2^64. */
static __always_inline __u64 postern_rounded_size(const struct postern_range* window) {
    const __u64 mask = POSTERN_PAGE_SIZE - 1;
    const __u64 last = window->offset + window->length - 1;
    return (last | mask) - (window->offset & ~mask) + 1;
}

/* 1 if the window has all of the access and method bits in `needed`. */
static __always_inline __u64 postern_offers(const struct postern_range* window, __u32 needed) {
    return postern_nonzero(needed & ~window->flags) ^ 1;
}

static __always_inline __u32 postern_prot_access(__u64 prot) {
    return (prot & POSTERN_PROT_READ ? POSTERN_WINDOW_READ : 0) |
           (prot & POSTERN_PROT_WRITE ? POSTERN_WINDOW_WRITE : 0);
}

/* Does one window allow all of `needed` on a range of mapped pages? */
static __always_inline int postern_any_window_maps(const struct postern_policy* policy, __u64 start,
                                                   __u64 length, __u32 needed, int by_vma_offset) {
    __u64 found = 0;
    for (__u32 i = 0; i < POSTERN_MAX_WINDOWS; i++) {
        if (i >= policy->n_windows) break;
        const struct postern_range* window = &policy->windows[i];
        const __u64 base = by_vma_offset ? window->vma_offset : window->offset & ~(POSTERN_PAGE_SIZE - 1);
        found |= postern_is_sane(window) & postern_offers(window, needed) &
                 postern_inside(start, length, base, postern_rounded_size(window));
    }
    return found != 0;
}

/* Does one window allow all of `needed` on exactly these bytes? */
static __always_inline int postern_any_window_reads(const struct postern_policy* policy, __u64 start,
                                                    __u64 length, __u32 needed) {
    __u64 found = 0;
    for (__u32 i = 0; i < POSTERN_MAX_WINDOWS; i++) {
        if (i >= policy->n_windows) break;
        const struct postern_range* window = &policy->windows[i];
        found |= postern_is_sane(window) & postern_offers(window, needed) &
                 postern_inside(start, length, window->offset, window->length);
    }
    return found != 0;
}

/*
 * The entry of a command, or one of another command: the list is sorted by command (unused entries last, with
 * ~0), or it is searched in vain. Without branches in its steps, and in bytes rather than entries, which
 * saves a shift a step.
 */
static __always_inline const struct postern_ioctl_entry* postern_find_ioctl(
    const struct postern_policy* policy, __u32 cmd) {
    const char* entries = (const char*)policy->ioctls;
    __u64 at = 0;
#if POSTERN_MAX_IOCTLS != 64
#error "the steps of the search are for 64 entries"
#endif
/* Of two numbers of 32 bits the borrow of a subtraction in 64: is the last entry of the lower half too small?
 */
#define POSTERN_SEARCH_STEP(step)                                                                           \
    do {                                                                                                    \
        const struct postern_ioctl_entry* last =                                                            \
            (const struct postern_ioctl_entry*)(entries + at) + ((step)-1);                                 \
        at += postern_top_bit((__u64)last->cmd - cmd) * ((step) * sizeof(struct postern_ioctl_entry));      \
        /* An addition, to Linux 6.1's verifier: of an "or", which a compiler makes of it, it knows no end. \
         */                                                                                                 \
        __asm__("" : "+r"(at));                                                                             \
    } while (0)
    /* Most lists are short. */
    if (policy->n_ioctls > 8) {
        POSTERN_SEARCH_STEP(32u);
        POSTERN_SEARCH_STEP(16u);
        POSTERN_SEARCH_STEP(8u);
    }
    POSTERN_SEARCH_STEP(4u);
    POSTERN_SEARCH_STEP(2u);
    POSTERN_SEARCH_STEP(1u);
#undef POSTERN_SEARCH_STEP
    return (const struct postern_ioctl_entry*)(entries + at);
}

/*
 * ioctl(2). The command is the hook's own argument. The number is checked all the same: whatever reaches this
 * hook by another way (a 32-bit ioctl, on kernels without a hook of its own for that) is not known.
 *
 * Allowed only as far as `rules`, which is left NULL if there are none, allow it: postern_decide_block().
 */
static __always_inline int postern_decide_ioctl(const struct postern_policy* policy, __u32 task, __u64 nr,
                                                __u32 cmd, const struct postern_ioctl_entry** rules) {
    *rules = 0;
    if (policy->flags & (POSTERN_POLICY_REVOKED | POSTERN_POLICY_SHARED))
        return policy->flags & POSTERN_POLICY_REVOKED ? POSTERN_DENY_REVOKED : POSTERN_DENY_SHARE;
    if (task & ~(POSTERN_TASK_IO_URING | POSTERN_TASK_IN_SANDBOX | POSTERN_TASK_TRUSTED)) {
        return task & POSTERN_TASK_COMPAT ? POSTERN_DENY_COMPAT : POSTERN_DENY_TASK;
    }
    if (nr != POSTERN_NR_IOCTL) return POSTERN_DENY_SYSCALL;
    const struct postern_ioctl_entry* listed = postern_find_ioctl(policy, cmd);
    if (listed->cmd != cmd) return POSTERN_DENY_COMMAND;
    if (listed->flags == POSTERN_IOCTL_ALLOWED) return POSTERN_ALLOW;
    if (listed->flags != POSTERN_IOCTL_RULED) return POSTERN_DENY_COMMAND;
    *rules = listed;
    return POSTERN_ALLOW;
}

/* A block of which at least `length` bytes are read by the kernel, and `sealed` cannot change any more. */
static __always_inline void postern_open_block(struct postern_block* block, __u64 address, __u64 sealed,
                                               __u64 length) {
    const __u64 head_length = length < POSTERN_HEAD_SIZE ? length : POSTERN_HEAD_SIZE;
    __builtin_memset(block->head, 0, sizeof(block->head));
    block->address = address;
    block->head_length = head_length;
    if (head_length == 0 || head_length > sealed || postern_fetch(block->head, (__u32)head_length, address)) {
        block->head_length = 0;
    }
}

/* The `width` (1 to 8) bytes at `offset`, zero-extended; other than 0 if they are not in memory just now. */
static __always_inline long postern_read_field(const struct postern_block* block, __u32 offset, __u32 width,
                                               __u64* value) {
    const __u32 at = offset % 8;
    /* A verifier takes only aligned words from the stack; a field across two of them is rare. */
    if ((__u64)offset + width > block->head_length || at + width > 8) {
        __u64 fetched = 0;
        const long error = postern_fetch(&fetched, width, block->address + offset);
        *value = fetched;
        return error;
    }
    /* Nor does it see that the offset is below the head's size: hence the remainder. */
    *value = block->head[offset / 8 % (POSTERN_HEAD_SIZE / 8)] >> 8 * at & ~(__u64)0 >> (64 - 8 * width);
    return 0;
}

/*
 * Whether a range that begins at `first` ends at `max` at the latest: 1, 0, or below 0 if its length, which
 * is at `length_at` of the block, is not in memory just now. What is above max is some other test's to
 * refuse; here it only must not wrap.
 *
 * A verifier looks at this once, and not in each step of each rule of each ioctl that comes here.
 */
POSTERN_ONCE int postern_range_fits(const struct postern_block* block, __u32 length_at, __u64 first,
                                    __u64 max) {
    __u64 length = 0;
    if (!block || first > max) return 0;
    if (postern_read_field(block, length_at, 8, &length)) return -1;
    return length != 0 && length - 1 <= max - first;
}

/*
 * The argument block of an ioctl that has rules: `sealed` bytes of it cannot change any more, and what
 * the kernel will read of it has to lie in them. Its rules are walked without branches, as the windows are.
 */
static __always_inline int postern_decide_block(const struct postern_policy* policy,
                                                const struct postern_ioctl_entry* listed, __u64 address,
                                                __u64 sealed) {
    const __u32 first = listed->first_rule;
    const __u32 n_rules = listed->n_rules;
    __u64 length = listed->block_size;
    __u64 allowed = 0; /* some alternative, whole, held */
    __u64 holds = 0;   /* what there was of this alternative did */
    __u64 chain = 0;   /* some test of this chain did */
    __u64 ended = 1;   /* the latest test was its chain's last */
    struct postern_block block;

    postern_open_block(&block, address, sealed, length);
    if (listed->size_at != POSTERN_SIZE_FIXED) {
        __u64 size = 0;
        if (sealed < (__u64)listed->size_at + 4) return POSTERN_DENY_UNSEALED;
        if (postern_read_field(&block, listed->size_at, 4, &size)) return POSTERN_TRY_AGAIN;
        if (size > length) length = size;
    }
    if (length == 0 || sealed < length) return POSTERN_DENY_UNSEALED;
    if (first + n_rules > POSTERN_MAX_RULES) return POSTERN_DENY_ARGUMENT;

    for (__u64 at = first; at < first + n_rules; at++) {
        /* What is compared is what is used: a verifier does not see that two sums are the same. */
        __asm__("" : "+r"(at));
        if (at >= POSTERN_MAX_RULES) return POSTERN_DENY_ARGUMENT;
        const struct postern_rule* rule = &policy->rules[at];
        const __u32 width = rule->width;
        __u64 value = 0;
        if (width < 1 || width > 8 || (__u64)rule->offset + width > length) return POSTERN_DENY_ARGUMENT;
        if (postern_read_field(&block, rule->offset, width, &value)) return POSTERN_TRY_AGAIN;

        const __u64 begins = postern_bit(rule->flags, POSTERN_RULE_FIRST);
        const __u64 goes_on = postern_bit(rule->flags, POSTERN_RULE_OR);
        value &= rule->mask;
        __u64 excess = 0;
        if (rule->flags & POSTERN_RULE_RANGE) {
            if ((__u64)rule->length_at + 8 > length) return POSTERN_DENY_ARGUMENT;
            const int fits = postern_range_fits(&block, rule->length_at, value, rule->max);
            if (fits < 0) return POSTERN_TRY_AGAIN;
            excess = (__u64)fits ^ 1;
        }
        allowed |= begins & holds & ended;
        holds |= begins;
        chain &= begins ^ 1;
        chain |= (postern_less(value, rule->min) | postern_less(rule->max, value) | excess) ^ 1;
        holds &= chain | goes_on;
        chain &= goes_on;
        ended = goes_on ^ 1;
    }
    return allowed | (holds & ended) ? POSTERN_ALLOW : POSTERN_DENY_ARGUMENT;
}

/*
 * Narrows the policy as the caller asks: POSTERN_RESTRICTED, or POSTERN_BAD_RESTRICTION with nothing changed.
 * Bits are only ever taken away, so calls that are decided meanwhile see more or less of it, and nobody can
 * widen anything.
 */
static __always_inline int postern_restrict(struct postern_policy* policy, __u64 request) {
    const __u32 lost = (__u32)request & POSTERN_WINDOW_KNOWN;

    switch (POSTERN_RESTRICT_OP(request)) {
        case POSTERN_RESTRICT_IOCTL:
        case POSTERN_RESTRICT_IOCTLS: {
            const int all = POSTERN_RESTRICT_OP(request) == POSTERN_RESTRICT_IOCTLS;
            if (request & (all ? 0x00ffffffffffffffull : 0x00ffffff00000000ull))
                return POSTERN_BAD_RESTRICTION;
            for (__u32 i = 0; i < POSTERN_MAX_IOCTLS; i++) {
                if (all || policy->ioctls[i].cmd == (__u32)request) policy->ioctls[i].flags = 0;
            }
            return POSTERN_RESTRICTED;
        }
        case POSTERN_RESTRICT_WINDOW: {
            const __u32 at = (__u32)(request >> 8) & 0xff;
            if (request & 0x00ffffffffff00f0ull) return POSTERN_BAD_RESTRICTION;
            if (at >= POSTERN_MAX_WINDOWS || at >= policy->n_windows) return POSTERN_BAD_RESTRICTION;
            __sync_fetch_and_and(&policy->windows[at].flags, ~lost);
            return POSTERN_RESTRICTED;
        }
        case POSTERN_RESTRICT_WINDOWS:
            if (request & 0x00fffffffffffff0ull) return POSTERN_BAD_RESTRICTION;
            for (__u32 i = 0; i < POSTERN_MAX_WINDOWS; i++) {
                __sync_fetch_and_and(&policy->windows[i].flags, ~lost);
            }
            return POSTERN_RESTRICTED;
        case POSTERN_RESTRICT_FORWARD:
            if (request & 0x00ffffffffffffffull) return POSTERN_BAD_RESTRICTION;
            policy->forward = POSTERN_FORWARD_NEVER;
            return POSTERN_RESTRICTED;
        default:
            return POSTERN_BAD_RESTRICTION;
    }
}

/*
 * mmap(2). The hook gets neither offset nor length, so both come from the registers saved at system call
 * entry, which the caller cannot change any more; only where mmap(2) itself is the call in progress are they
 * the ones that count. remap_file_pages(2) comes here with a number of its own.
 *
 * x86 has no pages that can be written and not read: a window that may only be written can be read by a
 * mapping of it all the same.
 */
static __always_inline int postern_decide_mmap(const struct postern_policy* policy,
                                               const struct postern_call* call) {
    const __u64 mask = POSTERN_PAGE_SIZE - 1;
    const __u64 length = call->args[1];
    const __u64 flags = call->args[3];
    const __u64 offset = call->args[5];
    const __u64 prot = call->args[2] | call->reqprot | call->prot;
    const __u64 type = flags & POSTERN_MAP_TYPE;

    if (call->task & POSTERN_TASK_COMPAT) return POSTERN_DENY_COMPAT;
    if (call->task & POSTERN_TASK_KERNEL) return POSTERN_DENY_TASK;
    if (call->nr != POSTERN_NR_MMAP) return POSTERN_DENY_SYSCALL;
    /* A private mapping is a copy under no rule; flags of the hook that differ are not this call's. */
    if (type != POSTERN_MAP_SHARED && type != POSTERN_MAP_SHARED_VALIDATE) return POSTERN_DENY_FLAGS;
    if (flags & ~(__u64)(POSTERN_MAP_TYPE | POSTERN_MAP_HARMLESS)) return POSTERN_DENY_FLAGS;
    if (flags != call->flags) return POSTERN_DENY_FLAGS;
    if (prot & ~(__u64)(POSTERN_PROT_READ | POSTERN_PROT_WRITE)) return POSTERN_DENY_PROT;
    if (offset & mask) return POSTERN_DENY_RANGE;
    if (length == 0 || length > ~(__u64)0 - mask) return POSTERN_DENY_RANGE;
    if (!postern_any_window_maps(policy, offset, (length + mask) & ~mask,
                                 POSTERN_WINDOW_MMAP | postern_prot_access(prot), 0)) {
        return POSTERN_DENY_RANGE;
    }
    return POSTERN_ALLOW;
}

/*
 * mprotect(2), pkey_mprotect(2). The hook is called once for each mapping that the range touches, with the
 * whole mapping before it is split. Its place in the file is in the mapping itself, so the registers do not
 * matter.
 */
static __always_inline int postern_decide_mprotect(const struct postern_policy* policy,
                                                   const struct postern_call* call) {
    const __u64 prot = call->reqprot | call->prot;

    if (prot & ~(__u64)(POSTERN_PROT_READ | POSTERN_PROT_WRITE)) return POSTERN_DENY_PROT;
    if (call->vma_pgoff > ~(__u64)0 / POSTERN_PAGE_SIZE) return POSTERN_DENY_RANGE;
    if (!postern_any_window_maps(policy, call->vma_pgoff * POSTERN_PAGE_SIZE, call->vma_length,
                                 POSTERN_WINDOW_MMAP | postern_prot_access(prot), 1)) {
        return POSTERN_DENY_RANGE;
    }
    return POSTERN_ALLOW;
}

/*
 * Reads and writes. The hook gets no position; only pread64(2) and pwrite64(2) have it in registers, as the
 * position and count that the driver then sees. Every other way, and there are many, is refused by its
 * number.
 *
 * A task that uses io_uring is refused even those two. io_uring finishes requests in task work, at the end of
 * whatever system call the task is in, with that call's registers still saved: a queued read of any position
 * would pass for the pread64 in progress. The worker threads of io_uring show the number 0, which is read(2);
 * they are refused as such and by their kind.
 */
static __always_inline int postern_decide_access(const struct postern_policy* policy,
                                                 const struct postern_call* call) {
    __u32 needed = POSTERN_WINDOW_PREAD;

    if (call->task & POSTERN_TASK_COMPAT) return POSTERN_DENY_COMPAT;
    if (call->task & (POSTERN_TASK_KERNEL | POSTERN_TASK_IO_URING)) return POSTERN_DENY_TASK;
    if (call->nr == POSTERN_NR_PREAD64) {
        if (call->mask != POSTERN_MAY_READ) return POSTERN_DENY_MASK;
        needed |= POSTERN_WINDOW_READ;
    } else if (call->nr == POSTERN_NR_PWRITE64) {
        if (call->mask != POSTERN_MAY_WRITE) return POSTERN_DENY_MASK;
        needed |= POSTERN_WINDOW_WRITE;
    } else {
        return POSTERN_DENY_SYSCALL;
    }
    if (!postern_any_window_reads(policy, call->args[3], call->args[2], needed)) return POSTERN_DENY_RANGE;
    return POSTERN_ALLOW;
}

/* SCM_RIGHTS, pidfd_getfd(2), SECCOMP_IOCTL_NOTIF_ADDFD, io_uring's FIXED_FD_INSTALL: the task is the
 * receiver. */
static __always_inline int postern_decide_receive(const struct postern_policy* policy,
                                                  const struct postern_call* call) {
    /*
     * Who keeps the file for its owner (systemd, the holder, the next broker) must be able to hold it.
     * Anybody else could name it to another driver, which asks no hook: VFIO_DEVICE_BIND_IOMMUFD and
     * VFIO_GROUP_SET_CONTAINER put a second device into the address space of an iommufd.
     */
    if (policy->flags & POSTERN_POLICY_SHARED) {
        if (call->task & POSTERN_TASK_IN_SANDBOX) return POSTERN_DENY_SHARE;
        return call->task & POSTERN_TASK_TRUSTED ? POSTERN_ALLOW : POSTERN_DENY_RECEIVER;
    }
    if (policy->forward == POSTERN_FORWARD_ANYONE) return POSTERN_ALLOW;
    if (policy->forward == POSTERN_FORWARD_SANDBOX && call->task & POSTERN_TASK_IN_SANDBOX)
        return POSTERN_ALLOW;
    return POSTERN_DENY_RECEIVER;
}

/*
 * POSTERN_ALLOW, or the negative reason of the refusal. `hook` is that of the call; a program that names its
 * own here holds no code, and no stack, of the others.
 */
static __always_inline int postern_decide_in(__u32 hook, const struct postern_policy* policy,
                                             const struct postern_call* call) {
    if (policy->flags & POSTERN_POLICY_REVOKED) return POSTERN_DENY_REVOKED;
    if (call->task & ~POSTERN_TASK_KNOWN) return POSTERN_DENY_TASK;
    if (policy->flags & POSTERN_POLICY_SHARED && hook != POSTERN_HOOK_RECEIVE) return POSTERN_DENY_SHARE;
    switch (hook) {
        case POSTERN_HOOK_IOCTL: {
            const struct postern_ioctl_entry* rules = 0;
            const int verdict = postern_decide_ioctl(policy, call->task, call->nr, call->cmd, &rules);
            return rules ? postern_decide_block(policy, rules, call->arg, call->sealed) : verdict;
        }
        case POSTERN_HOOK_IOCTL_COMPAT:
            return POSTERN_DENY_COMPAT;
        case POSTERN_HOOK_MMAP:
            return postern_decide_mmap(policy, call);
        case POSTERN_HOOK_MPROTECT:
            return postern_decide_mprotect(policy, call);
        case POSTERN_HOOK_ACCESS:
            return postern_decide_access(policy, call);
        case POSTERN_HOOK_RECEIVE:
            return postern_decide_receive(policy, call);
        default:
            return POSTERN_DENY_HOOK;
    }
}

static __always_inline int postern_decide(const struct postern_policy* policy,
                                          const struct postern_call* call) {
    return postern_decide_in(call->hook, policy, call);
}

#endif
