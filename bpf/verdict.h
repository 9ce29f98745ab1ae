/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The names in which the decision speaks: what was decided, where, about which call. Apart from decide.h for
 * those who read refusals and decide nothing.
 */
#ifndef POSTERN_BPF_VERDICT_H
#define POSTERN_BPF_VERDICT_H

/* Why a call is refused; 0 is allowed. */
enum postern_verdict {
    POSTERN_ALLOW = 0,
    POSTERN_DENY_SYSCALL = -1, /* not one of the system calls whose arguments are known to be the call's */
    POSTERN_DENY_COMMAND = -2, /* ioctl command that is not listed */
    POSTERN_DENY_COMPAT = -3,  /* 32-bit system call */
    POSTERN_DENY_FLAGS = -4,   /* mmap flags: not shared, or unknown */
    POSTERN_DENY_PROT = -5,    /* executable or unknown protection */
    POSTERN_DENY_RANGE = -6,   /* not inside one window that allows this access in this way */
    POSTERN_DENY_TASK = -7,    /* kernel thread, io_uring worker, or a task that uses io_uring */
    POSTERN_DENY_RECEIVER = -8,
    POSTERN_DENY_MASK = -9, /* access that is not exactly a read or a write */
    POSTERN_DENY_HOOK = -10,
    POSTERN_DENY_REVOKED = -11,
    POSTERN_DENY_UNSEALED = -12,   /* an argument block that somebody could still change */
    POSTERN_DENY_ARGUMENT = -13,   /* an argument block that fits no alternative of its rules */
    POSTERN_DENY_STRAY = -14,      /* a file that is not registered, of a kind or inode that has to be */
    POSTERN_TRY_AGAIN = -15,       /* the block could not be looked at just now: EAGAIN, and no refusal */
    POSTERN_RESTRICTED = -16,      /* a request to narrow the policy, granted: EALREADY */
    POSTERN_BAD_RESTRICTION = -17, /* one that does not exist: EINVAL */
    POSTERN_DENY_SHARE = -18,      /* a shared file on which the task's sandbox has no policy */
    POSTERN_DENY_TRACE = -19,      /* a task in a sandbox wants to look into an owner of devices */
};

enum postern_hook {
    POSTERN_HOOK_IOCTL = 1,
    POSTERN_HOOK_IOCTL_COMPAT = 2,
    POSTERN_HOOK_MMAP = 3,
    POSTERN_HOOK_MPROTECT = 4,
    POSTERN_HOOK_ACCESS = 5, /* read or write: LSM hook file_permission */
    POSTERN_HOOK_RECEIVE = 6,
    POSTERN_HOOK_TRACE = 7, /* ptrace_access_check: ptrace(2), pidfd_getfd(2), process_vm_readv(2), … */
};

/* x86-64 system call numbers; x32 has bit 30 set in them, so it never compares equal. */
#define POSTERN_NR_MMAP 9u
#define POSTERN_NR_IOCTL 16u
#define POSTERN_NR_PREAD64 17u
#define POSTERN_NR_PWRITE64 18u

/* include/linux/fs.h */
#define POSTERN_MAY_WRITE 2u
#define POSTERN_MAY_READ 4u

#endif
