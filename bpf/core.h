/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The few kernel structures the guard reads, with only the fields it reads. CO-RE finds their real offsets in
 * the running kernel's BTF when the object is loaded, so no BTF of the build machine is needed.
 */
#ifndef POSTERN_BPF_CORE_H
#define POSTERN_BPF_CORE_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file_operations;
struct files_struct;
struct io_uring_task;

struct inode;

struct file {
    unsigned int f_mode;
    const struct file_operations* f_op;
    struct inode* f_inode;
};

/* The driver of a character device. */
struct cdev {
    const struct file_operations* ops;
};

struct inode {
    unsigned short i_mode;
    unsigned int i_rdev;
    struct cdev* i_cdev;
};
/* The memory behind a memfd. Only offsets into it are used. */
struct shmem_inode_info {
    unsigned int seals;
    struct inode vfs_inode;
};

/* What an IORING_OP_URING_CMD hands to a driver. */
struct io_uring_cmd {
    struct file* file;
    __u32 cmd_op;
};

struct vm_area_struct {
    unsigned long vm_start;
    unsigned long vm_end;
    unsigned long vm_pgoff;
    unsigned long vm_flags;
    struct file* vm_file;
};

struct thread_info {
    __u32 status;
};

struct user_namespace {
    int level;
};
/* kernel_cap_t: two numbers of 32 bits before Linux 6.3, one of 64 since; the first bits are the same. */
struct capabilities {
    __u32 first;
};
struct cred {
    struct capabilities cap_effective;
    struct user_namespace* user_ns;
};

struct task_struct {
    struct thread_info thread_info;
    unsigned int flags;
    int pid;
    int tgid;
    struct task_struct* group_leader;
    struct task_struct* real_parent;
    __u64 self_exec_id;
    const struct cred* cred;
    struct files_struct* files;
    struct io_uring_task* io_uring;
};

/* Registers of user space as saved at system call entry (x86-64). */
struct pt_regs {
    unsigned long r10;
    unsigned long r9;
    unsigned long r8;
    unsigned long dx;
    unsigned long si;
    unsigned long di;
    unsigned long orig_ax;
};

struct seq_file;
struct bpf_iter_meta {
    struct seq_file* seq;
};
struct bpf_iter__task_file {
    struct bpf_iter_meta* meta;
    struct task_struct* task;
    __u32 fd;
    struct file* file;
};
struct bpf_iter__task_vma {
    struct bpf_iter_meta* meta;
    struct task_struct* task;
    struct vm_area_struct* vma;
};

#pragma clang attribute pop

/* include/linux/sched.h */
#define PF_IO_WORKER 0x00000010u
#define PF_KTHREAD 0x00200000u
/* include/uapi/linux/capability.h */
#define CAP_SYS_ADMIN 21
/* arch/x86/include/asm/thread_info.h: the system call in progress was entered in 32-bit mode. */
#define TS_COMPAT 0x0002u

/* include/linux/ptrace.h: asked for something that can be left out. */
#define PTRACE_MODE_NOAUDIT 0x04u

/* include/linux/mm.h */
#define VM_WRITE 0x00000002ul
#define VM_SHARED 0x00000008ul
#define VM_MAYWRITE 0x00000020ul
/* include/uapi/linux/stat.h */
#define S_IFMT 00170000
#define S_IFCHR 0020000
/* include/linux/fs.h */
#define FMODE_PATH 0x4000
/* include/uapi/linux/fcntl.h */
#define F_SEAL_SHRINK 0x0002u
#define F_SEAL_WRITE 0x0008u

#define EPERM 1
#define EAGAIN 11
#define EBUSY 16
#define EINVAL 22
#define EXDEV 18
#define ENXIO 6
#define ENOSPC 28
#define EALREADY 114

#endif
