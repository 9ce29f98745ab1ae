/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What crosses the boundary between user space and the guard in the kernel, and nothing else. Plain C for
 * clang's BPF target, C11 and C++20 alike. Changing anything here changes POSTERN_GUARD_ABI.
 */
#ifndef POSTERN_BPF_POLICY_H
#define POSTERN_BPF_POLICY_H

#include <linux/types.h>

/* Part of the folder's name in bpffs: sets of different ABI stand beside each other. */
#define POSTERN_GUARD_ABI 5

#define POSTERN_GRANT_SIZE 40 /* with the terminating NUL */
#define POSTERN_DEVICE_SIZE 32
#define POSTERN_PROFILE_SIZE 48
#define POSTERN_MAX_IOCTLS 64
#define POSTERN_MAX_RULES 48
#define POSTERN_MAX_WINDOWS 32
#define POSTERN_MAX_FILES 65536
#define POSTERN_MAX_SANDBOXES 16384
/* Policies of sandboxes on files that are shared. */
#define POSTERN_MAX_SHARES 4096
/* How far up from a task a program of the owner's is looked for. */
#define POSTERN_MAX_ANCESTORS 8
/* Kinds of file (struct file_operations) that are told apart from all others. */
#define POSTERN_MAX_KINDS 16
/* Deepest cgroup level of a sandbox: how many ancestors are looked at on the rare path. */
#define POSTERN_MAX_CGROUP_LEVEL 31

/* Who hears of refusals at the same time, and how much each may have unread (bytes, a power of two). */
#define POSTERN_MAX_LISTENERS 16
#define POSTERN_EVENTS_SIZE 65536
/* Refusals of one file that are told in a second or so (2^30 ns); the rest is only counted. */
#define POSTERN_EVENTS_PER_PERIOD 16
#define POSTERN_PERIOD_SHIFT 30
/* How much of an ioctl's argument block a refusal tells. */
#define POSTERN_EVENT_BLOCK 48

/* A mapping of a file is made of pages of this size on x86-64. */
#define POSTERN_PAGE_SIZE 4096ULL

/*
 * One test of one field of an ioctl's argument block: min <= (field & mask) <= max. Fields are little endian
 * and 1 to 8 bytes wide. With a length, a field of 8 bytes, it is about a range instead: it begins at the
 * masked field, is not empty, and its last byte is at most max.
 *
 * The rules of an ioctl stand in a row, in alternatives: one of them must hold, and it holds when each of its
 * tests does. Tests of an alternative that hold if one of several ranges does stand in a chain.
 */
#define POSTERN_RULE_FIRST 1u /* an alternative begins here */
#define POSTERN_RULE_OR 2u    /* the next test continues the chain that this one is in */
#define POSTERN_RULE_RANGE 4u /* `length_at` is where the length of a range is */
struct postern_rule {
    __u64 mask;
    __u64 min;
    __u64 max;
    __u16 offset; /* bytes from the block's start */
    __u8 width;   /* bytes */
    __u8 flags;
    __u16 length_at; /* bytes from the block's start */
    __u16 pad;
};

/* postern_ioctl_entry.size_at: the block is always block_size bytes long */
#define POSTERN_SIZE_FIXED 0xffffu
/* postern_ioctl_entry.flags: anything else allows nothing, such as 0 of an unused entry or a right given up
 */
#define POSTERN_IOCTL_ALLOWED 1u /* with any argument */
#define POSTERN_IOCTL_RULED 2u   /* with an argument block that lies sealed and fits the rules */

/* One ioctl that may be called. */
struct postern_ioctl_entry {
    __u32 cmd;
    __u32 flags;
    __u16 first_rule;
    __u16 n_rules;
    __u16 block_size; /* bytes that the kernel reads at least */
    __u16 size_at;    /* where in the block a __u32 says how long it is, such as vfio's argsz */
};

/* postern_range.flags: what may be done, and by which way. */
#define POSTERN_WINDOW_READ 1u
#define POSTERN_WINDOW_WRITE 2u
#define POSTERN_WINDOW_MMAP 4u  /* mmap(2), of the range rounded out to pages */
#define POSTERN_WINDOW_PREAD 8u /* pread(2), pwrite(2), of exactly the range */
#define POSTERN_WINDOW_KNOWN 15u

/*
 * The window's range of a file. `offset` and `length` count bytes in the file's offset space as mmap(2) and
 * pread(2) see it. `vma_offset` is vm_pgoff << 12 of a mapping that starts at `offset` rounded down to a
 * page: Linux 6.1's vfio-pci puts the physical page number there, 6.12 and later leave the offset alone.
 */
struct postern_range {
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
/* Inside its own sandbox an unregistered file of the same inode or device is refused everything: one that was
 * opened anew. */
#define POSTERN_POLICY_ONLY_WAY 2u
/* Everything is refused, for good. */
#define POSTERN_POLICY_REVOKED 4u
/*
 * The file cannot be opened twice, so its owner and all clients have this one. Nothing is ruled for the owner
 * (see postern_owner), each sandbox is under a policy of its own (see postern_share), and everybody else
 * under this one, which allows nothing but to hold the file.
 */
#define POSTERN_POLICY_SHARED 8u

/*
 * What may be done with one struct file. User space writes it once, when the file is registered; from then on
 * it only narrows, in place and field by field.
 */
struct postern_policy {
    char grant[POSTERN_GRANT_SIZE];
    /* Who it is, for people: PCI address or path, profile. NUL-terminated. */
    char device[POSTERN_DEVICE_SIZE];
    char profile[POSTERN_PROFILE_SIZE];
    __u32 slice;
    __u32 launcher; /* pid, in the initial pid namespace of the machine or container that postern runs in */
    __u64 since;    /* CLOCK_BOOTTIME, ns */
    __u64 sandbox_cgroup; /* id of the cgroup v2 folder of the client's sandbox, 0: none */
    __u64 inode;          /* see postern_only_way; written by the guard when the file is registered */
    __u64 denied;         /* refused calls so far, counted by the guard */
    __u64 period;         /* the latest in which a refusal was told, and how many were */
    __u64 serial;         /* of a shared file, and of its shares: no two files ever have the same */
    __u64 owner;          /* of a shared file: the token of its owner */
    __u32 told;
    __u32 untold;       /* since the last that was */
    __u32 cgroup_level; /* depth of the sandbox's folder below the root, whose level is 0 */
    __u32 forward;
    __u32 flags;
    __u32 n_ioctls;
    __u32 n_windows;
    __u32 file; /* which of the grant's files it is */
    struct postern_ioctl_entry
        ioctls[POSTERN_MAX_IOCTLS]; /* n_ioctls by command, then unused ones with cmd ~0 */
    struct postern_rule rules[POSTERN_MAX_RULES];
    struct postern_range windows[POSTERN_MAX_WINDOWS];
};

/*
 * Whoever holds a guarded file can give up rights of it for good: ioctl(fd, POSTERN_IOC_RESTRICT, request),
 * where the request is a number, so that there is nothing to race with. The guard answers it, never the
 * driver: EALREADY says that it is so now, EINVAL that there is no such request.
 */
#define POSTERN_IOC_RESTRICT 0xf950u /* _IO(0xf9, 0x50) */
#define POSTERN_RESTRICT_OP(request) ((__u32)((request) >> 56))
#define POSTERN_RESTRICT_IOCTL 1u   /* bits 31..0: the command that may no longer be called */
#define POSTERN_RESTRICT_IOCTLS 2u  /* all commands */
#define POSTERN_RESTRICT_WINDOW 3u  /* bits 15..8: which window; 3..0: POSTERN_WINDOW_… to lose */
#define POSTERN_RESTRICT_WINDOWS 4u /* bits 3..0: what all windows lose */
#define POSTERN_RESTRICT_FORWARD 5u /* nobody may receive the file any more */

/* postern_pending.action */
#define POSTERN_PENDING_NONE 0u
#define POSTERN_PENDING_REGISTER 1u /* put `policy` on the file and learn its kind */
#define POSTERN_PENDING_LEARN 2u    /* learn its kind only, as an exclusive one */
#define POSTERN_PENDING_LOOK \
    3u /* vm_flags of the file's mapping at `address` into `value`; EXDEV: another's */
#define POSTERN_PENDING_SEALING 4u /* the file is a memfd, `value` the bit of vm_flags that mseal(2) sets */
#define POSTERN_PENDING_OWN 5u     /* the process has the token `value` from now on; any file */
#define POSTERN_PENDING_CLAIM 6u   /* the shared file is of the owner with the token `value` from now on */
#define POSTERN_PENDING_JOIN 7u    /* the process has the token of the shared file's owner from now on */
#define POSTERN_PENDING_SHARE 8u   /* `policy` is what holds for its sandbox on the shared file */

/*
 * The one request in progress; the guard's lock serializes them. User space fills it in, runs the iterator
 * over its own files, and reads `seen` (files that were at `fd`: 1, or something is wrong), `error` (0 or a
 * positive errno) and `file` (the key in the map of files).
 */
struct postern_pending {
    __u32 fd;
    __u32 action;
    __u32 seen;
    __u32 error;
    __u64 file;
    __u64 address;
    __u64 value;
    struct postern_policy policy;
};

/*
 * Key of a sandbox's policy on a shared file. By the file's serial and not by its address: what is left
 * behind when the file is gone is nobody's.
 */
struct postern_share {
    __u64 serial;
    __u64 cgroup;
};

/*
 * Who owns shared files: kept with the task that leads a process (BPF task storage), so it ends with that, is
 * not inherited, and no number can be taken over.
 */
#define POSTERN_OWNER_PROGRAM 1u /* and all that it starts; it may execute another program */
#define POSTERN_OWNER_PROOF \
    2u /* no owner, but one that tries for it what is refused: nothing to tell anyone */
struct postern_owner {
    __u64 token;  /* 0: of nothing */
    __u64 execed; /* self_exec_id of the task: who executes another program is the owner no more */
    __u32 flags;
    __u32 pad;
};

/*
 * Whether a mapping of a file is left anywhere but with its owner: what on_mapping, which looks at all of the
 * machine's, is asked.
 */
struct postern_search {
    __u64 file;
    __u64 found;
    __u32 n_windows;
    __u32 reserved;
    struct postern_range windows[POSTERN_MAX_WINDOWS]; /* mappings of other places do not count */
};

/* postern_revocation.what */
#define POSTERN_REVOKE 0u /* everything is refused from now on */
#define POSTERN_FORGET 1u /* the refusals so far are forgotten */
#define POSTERN_MOVE 2u   /* the grant's sandbox is another one from now on */
/* Input of the program that changes a policy in place: nothing happens unless the file still is the grant's.
 */
struct postern_revocation {
    __u64 file;
    __u32 done;
    __u32 what;
    __u64 sandbox_cgroup; /* POSTERN_MOVE: as in the policy */
    __u64 share;          /* of a shared file: the sandbox whose policy is meant */
    __u32 cgroup_level;
    __u32 pad;
    char grant[POSTERN_GRANT_SIZE];
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

/* What the guard knows besides its maps; the kernel's half of it is written under the guard's lock. */
struct postern_state {
    struct postern_kinds kinds;
    __u64 memfd_f_op;    /* struct file_operations of memfds (shmem); 0: sealed blocks cannot be told */
    __u64 sealed_flag;   /* of vm_flags; 0: this kernel has no mseal(2) */
    __u64 strays_denied; /* refused calls on files that are not registered */
    __u64 stray_period;
    __u32 strays_told;
    __u32 strays_untold;
    /* A file of another driver than VFIO was registered: it may end with other file_operations than it had.
     */
    __u64 any_kind;
};

/*
 * Key of what is reached in one way only: an inode in a sandbox, or a character device, of which there can be
 * many inodes. The value counts registered files.
 */
struct postern_only_way {
    __u64 cgroup;
    __u64 inode; /* its address; of a character device its number, which is no address */
};

/* One reader of refusals; slot i of the map of ring buffers is its own. */
struct postern_listener {
    __u64 active;
    __u64 sandbox; /* id of the cgroup of the sandbox it listens to, 0: all */
    __u64 lost;    /* refusals for which its buffer had no room */
};

/* One refusal. What its hook does not have is 0. */
struct postern_event {
    __u64 time; /* CLOCK_BOOTTIME, ns */
    __u64 sandbox;
    __u32 pid; /* of the process, and of the thread */
    __u32 tid;
    char comm[16];
    char grant[POSTERN_GRANT_SIZE]; /* empty: the file is not registered */
    __u32 hook;
    __s32 verdict;
    __u32 cmd;
    __u32 untold; /* refusals of this file before this one that were only counted */
    __u64 nr;
    __u64 offset; /* where in the file */
    __u64 length;
    __u64 access; /* mmap, mprotect: protection; read, write: MAY_… */
    __u32 block_length;
    __u16 file;  /* which of the grant's */
    __u16 flags; /* POSTERN_POLICY_EXCLUSIVE: one of VFIO's */
    __u8
        block[POSTERN_EVENT_BLOCK]; /* the start of the argument block, as it was when the refusal was told */
};

#ifdef __cplusplus
#define POSTERN_ASSERT_SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#else
#define POSTERN_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#endif
POSTERN_ASSERT_SIZE(struct postern_rule, 32);
POSTERN_ASSERT_SIZE(struct postern_ioctl_entry, 16);
POSTERN_ASSERT_SIZE(struct postern_range, 32);
POSTERN_ASSERT_SIZE(struct postern_policy, 3800);
POSTERN_ASSERT_SIZE(struct postern_pending, 3840);
POSTERN_ASSERT_SIZE(struct postern_revocation, 80);
POSTERN_ASSERT_SIZE(struct postern_about, 16);
POSTERN_ASSERT_SIZE(struct postern_kinds, 264);
POSTERN_ASSERT_SIZE(struct postern_state, 312);
POSTERN_ASSERT_SIZE(struct postern_only_way, 16);
POSTERN_ASSERT_SIZE(struct postern_share, 16);
POSTERN_ASSERT_SIZE(struct postern_owner, 24);
POSTERN_ASSERT_SIZE(struct postern_search, 1048);
POSTERN_ASSERT_SIZE(struct postern_listener, 24);
POSTERN_ASSERT_SIZE(struct postern_event, 184);

#endif
