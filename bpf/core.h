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

struct file {
    const struct file_operations* f_op;
};

struct vm_area_struct {
    unsigned long vm_start;
    unsigned long vm_end;
    unsigned long vm_pgoff;
    struct file* vm_file;
};

struct thread_info {
    __u32 status;
};

struct task_struct {
    struct thread_info thread_info;
    unsigned int flags;
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

#pragma clang attribute pop

/* include/linux/sched.h */
#define PF_IO_WORKER 0x00000010u
#define PF_KTHREAD 0x00200000u
/* arch/x86/include/asm/thread_info.h: the system call in progress was entered in 32-bit mode. */
#define TS_COMPAT 0x0002u

#define EPERM 1
#define ENOSPC 28

#endif
