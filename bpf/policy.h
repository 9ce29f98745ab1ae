/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What crosses the boundary between user space and the guard in the kernel, and nothing else. Plain C for
 * clang's BPF target, C11 and C++20 alike. Changing anything here changes POSTERN_GUARD_ABI.
 */
#ifndef POSTERN_BPF_POLICY_H
#define POSTERN_BPF_POLICY_H

#include <linux/types.h>

/* Part of the folder's name in bpffs: sets of different ABI stand beside each other. */
#define POSTERN_GUARD_ABI 1

#define POSTERN_GRANT_SIZE 40 /* with the terminating NUL */
#define POSTERN_MAX_IOCTLS 64
#define POSTERN_MAX_WINDOWS 32
#define POSTERN_MAX_FILES 65536
#define POSTERN_MAX_SANDBOXES 16384
/* Kinds of file (struct file_operations) that are told apart from all others. */
#define POSTERN_MAX_KINDS 16
/* Deepest cgroup level of a sandbox: how many ancestors are looked at on the rare path. */
#define POSTERN_MAX_CGROUP_LEVEL 31

/* A mapping of a file is made of pages of this size on x86-64. */
#define POSTERN_PAGE_SIZE 4096ULL

/* postern_window.flags: what may be done, and by which way. */
#define POSTERN_WINDOW_READ 1u
#define POSTERN_WINDOW_WRITE 2u
#define POSTERN_WINDOW_MMAP 4u  /* mmap(2), of the range rounded out to pages */
#define POSTERN_WINDOW_PREAD 8u /* pread(2), pwrite(2), of exactly the range */
#define POSTERN_WINDOW_KNOWN 15u

/*
 * One range of a file. `offset` and `length` count bytes in the file's offset space as mmap(2) and pread(2)
 * see it. `vma_offset` is vm_pgoff << 12 of a mapping that starts at `offset` rounded down to a page: Linux
 * 6.1's vfio-pci puts the physical page number there, 6.12 and later leave the offset alone.
 */
struct postern_window {
    __u64 offset;
    __u64 length;
    __u64 vma_offset;
    __u32 flags;
    __u32 pad;
};

/* postern_policy.forward: who may receive the file by SCM_RIGHTS, pidfd_getfd(2) and the like. */
#define POSTERN_FORWARD_NEVER 0u
#define POSTERN_FORWARD_SANDBOX 1u
#define POSTERN_FORWARD_ANYONE 2u

/* postern_policy.flags */
/* Inside every sandbox an unregistered file with the same file_operations is refused everything. */
#define POSTERN_POLICY_EXCLUSIVE 1u

/* What may be done with one struct file. */
struct postern_policy {
    char grant[POSTERN_GRANT_SIZE];
    __u64 sandbox_cgroup; /* id of the cgroup v2 folder of the client's sandbox, 0: none */
    __u64 denied;         /* refused calls so far, counted by the guard */
    __u32 cgroup_level;   /* depth of that folder below the root, whose level is 0 */
    __u32 forward;
    __u32 flags;
    __u32 n_ioctls;
    __u32 n_windows;
    __u32 pad;
    __u32 ioctls[POSTERN_MAX_IOCTLS];
    struct postern_window windows[POSTERN_MAX_WINDOWS];
};

/* postern_pending.action */
#define POSTERN_PENDING_NONE 0u
#define POSTERN_PENDING_REGISTER 1u /* put `policy` on the file and learn its kind */
#define POSTERN_PENDING_LEARN 2u    /* learn its kind only, as an exclusive one */

/*
 * The one registration in progress; the guard's lock serializes them. User space fills it in, runs the
 * iterator over its own files, and reads `seen` (files that were at `fd`: 1, or something is wrong),
 * `error` (0 or a positive errno) and `file` (the key in the map of files).
 */
struct postern_pending {
    __u32 fd;
    __u32 action;
    __u32 seen;
    __u32 error;
    __u64 file;
    struct postern_policy policy;
};

/* What the pinned set is, written once before it is pinned. */
struct postern_about {
    __u32 abi;
    __u32 policy_size;
    __u64 stamp; /* of the BPF object file */
};

/*
 * The kinds of file the guard has anything to do with, learned from the files that are registered. `filter`
 * has bit POSTERN_KIND_BIT(f_op) set for each, so that almost every other file is let through after one test.
 */
struct postern_kind {
    __u64 f_op; /* address of the struct file_operations, 0: free */
    __u64 exclusive;
};
struct postern_kinds {
    __u64 filter;
    struct postern_kind kind[POSTERN_MAX_KINDS];
};
/* Of the low 32 bits of the address; a struct file_operations is larger than 256 bytes. */
#define POSTERN_KIND_BIT(f_op_low) ((f_op_low) >> 8 & 63)

#ifdef __cplusplus
#define POSTERN_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#else
#define POSTERN_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#endif
POSTERN_ASSERT_SIZE(struct postern_window, 32);
POSTERN_ASSERT_SIZE(struct postern_policy, 1360);
POSTERN_ASSERT_SIZE(struct postern_pending, 1384);
POSTERN_ASSERT_SIZE(struct postern_about, 16);
POSTERN_ASSERT_SIZE(struct postern_kinds, 264);

#endif
