/* SPDX-License-Identifier: Apache-2.0 */
/**
 * libpostern.h: postern for a program that drives a device itself through VFIO and wants to give parts of it
 * away. C11 or C++17, Linux only. Such a program opens a device or brings its own VFIO fds, and makes grants
 * of it: a guarded duplicate of the device fd, dma-bufs of windows, memory that is mapped for DMA, eventfds.
 * A grant goes to a client that is launched in a sandbox, or over a unix socket. The client's side is
 * postern.h.
 *
 * Errors: every function that returns int returns 0 (or a count) or a negative errno, and then
 * libpostern_error() of the calling thread is one line that says what, where, why and what to do. The library
 * never prints, never exits, and never changes what signals do. Exceptions never leave it.
 *
 * Threads: a context and what was made of it have one lock; any function may be called from any thread, but
 * nothing may be used while another thread frees it. libpostern_grant_wait() does not hold the lock while it
 * waits. A profile or a policy that is shared by threads must not be changed meanwhile. Several contexts in
 * one process do not disturb each other.
 *
 * fork(2): what a context owns stays the parent's. In a forked child every function on it fails with -EINVAL
 * and does nothing; the child may exec or exit, and all fds are close-on-exec. A launched client begins as a
 * copy of the caller, and the init of its sandbox stays one: give mappings of device memory MADV_DONTFORK
 * (madvise(2)).
 *
 * fds: an int parameter is borrowed unless its function says otherwise, and duplicated where it is kept. fds
 * that are given out are the library's unless the function says otherwise; they live as long as the object
 * they come from.
 *
 * Rights: devices, grants and launches need root, as `postern run --device` does.
 */
#ifndef LIBPOSTERN_H
#define LIBPOSTERN_H

/* NOLINTBEGIN(modernize-use-nullptr, modernize-use-using, modernize-deprecated-headers): C */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIBPOSTERN_VERSION_MAJOR 0
#define LIBPOSTERN_VERSION_MINOR 1
#define LIBPOSTERN_VERSION_PATCH 0

/* Rights and ways of a window; READ and WRITE are a piece of DMA memory's, too (what the device may do with
 * it). */
#define LIBPOSTERN_READ 1U
#define LIBPOSTERN_WRITE 2U
#define LIBPOSTERN_MMAP 4U    /* mmap(2) of the guarded device fd, in whole pages */
#define LIBPOSTERN_PREAD 8U   /* pread(2) and pwrite(2), exact to the byte */
#define LIBPOSTERN_DMABUF 16U /* a dma-buf of the pages */
#define LIBPOSTERN_SHARED_PAGE \
    32U /* its pages may be another grant's, too: a weakening that has to be said */

struct libpostern_context; /* a context: what one user of the library in this process owns */
struct libpostern_profile; /* a profile as `postern run --profile` takes it */
struct libpostern_device;
struct libpostern_policy; /* what may be done with a guarded device fd */
struct libpostern_grant;

/* Whom a client may pass its guarded device fd on to, and who may receive it at all. */
enum libpostern_forward {
    LIBPOSTERN_FORWARD_SANDBOX = 0, /* processes in the grant's sandbox: launched, or admitted */
    LIBPOSTERN_FORWARD_NEVER = 1,   /* nobody: only a launch, where the fd is inherited, can hand it over */
    LIBPOSTERN_FORWARD_ANYONE = 2   /* whoever is sent it; what the fd may do is limited all the same */
};

struct libpostern_region {
    uint64_t size;        /* bytes; 0: the device has none */
    uint64_t file_offset; /* where it begins in the offset space of the device fd */
    uint32_t flags;       /* LIBPOSTERN_READ, _WRITE, _MMAP (at least a part can be mapped) */
};

/* Memory that the device reaches at `iova`, and this process at `address`. */
struct libpostern_memory {
    int fd;        /* a memfd, sealed against a change of its size; the device's until it is freed */
    void* address; /* zeroed at first; not inherited by forked children */
    uint64_t size;
    uint64_t iova;
};

enum libpostern_reason {
    LIBPOSTERN_EXITED = 0,    /* status is the client's own */
    LIBPOSTERN_SIGNALED = 1,  /* status is 128 + signal */
    LIBPOSTERN_CPU_LIMIT = 2, /* the profile's cpu_limit; status is 124 */
    LIBPOSTERN_LOST = 3       /* killed together with its sandbox's init; status is 137 */
};

struct libpostern_exit {
    enum libpostern_reason reason;
    int status; /* as `postern run` would exit */
};

/* "0.1.0", of the library that runs. */
const char* libpostern_version(void);
/* The calling thread's last error: one line, valid until its next call into the library; "" before the first.
 */
const char* libpostern_error(void);

/* ---- context ---- */

/* Needs no rights: the guard in the kernel is acquired with the first grant, and given back by
 * libpostern_free(). */
int libpostern_new(struct libpostern_context** context);
/* Ends its grants (killing their sandboxes), closes its devices, gives the guard back. Goes on after an error
 * and returns the first; the context is gone in any case, unless this is a forked child, where nothing
 * happens. NULL is fine. */
int libpostern_free(struct libpostern_context* context);

/* ---- profiles ---- */

/* By name ("default", looked up where `postern run` does) or file (has a slash, or ends in .json). */
int libpostern_profile_load(struct libpostern_profile** profile, const char* name_or_file);
/* From JSON text, without "include"; relative files in it lie in `folder` (NULL: "/"). `text` need not end
 * with NUL. */
int libpostern_profile_parse(struct libpostern_profile** profile, const char* text, size_t length,
                             const char* folder);
/* Number of slices; 0 for NULL. */
unsigned libpostern_profile_slices(const struct libpostern_profile* profile);
/* What it weakens, one line each; "" if nothing. Lives as long as the profile. People should see it. */
const char* libpostern_profile_weakenings(const struct libpostern_profile* profile);
/* What was made of it stays. NULL is fine. */
void libpostern_profile_free(struct libpostern_profile* profile);

/* ---- devices ---- */

/* Owns the PCI device `bdf`, bound to vfio-pci, by the backend that `postern run` would take, but
 * no program of a profile runs and nothing is switched on. -EBUSY: another process has the group. */
int libpostern_device_open(struct libpostern_context* context, const char* bdf,
                           struct libpostern_device** device);
/* The caller's own VFIO fds, duplicated: the device's, its group's (of /dev/vfio/N: it opens the second
 * struct file, which is what gets guarded) and, if libpostern_device_dma_alloc() is to be used or IOVAs are
 * to be checked, the type 1 container's, else -1. The caller goes on using its own; what the library changes
 * on it, libpostern_device_close() undoes. */
int libpostern_device_adopt(struct libpostern_context* context, const char* bdf, int device_fd, int group_fd,
                            int container_fd, struct libpostern_device** device);
/* The owner's fd, unguarded and borrowed; -1 for NULL. */
int libpostern_device_fd(const struct libpostern_device* device);
/* VFIO region `index`: 0 to 5 are the BARs, 7 the configuration space. */
int libpostern_device_region(struct libpostern_device* device, unsigned index,
                             struct libpostern_region* region);
/* Switches memory space and bus mastering on; closing restores what was found. */
int libpostern_device_enable(struct libpostern_device* device);
int libpostern_device_reset(struct libpostern_device* device);
/* `size` bytes (whole pages) of zeroed memory, mapped for the device at `iova`; `access` LIBPOSTERN_READ |
 * _WRITE: the device's. Fills in *memory, which stays the library's. */
int libpostern_device_dma_alloc(struct libpostern_device* device, uint64_t size, uint64_t iova,
                                unsigned access, struct libpostern_memory* memory);
/* Unmaps and frees what libpostern_device_dma_alloc() made at `iova`. Clients may still hold the memory, the
 * device does not. */
int libpostern_device_dma_free(struct libpostern_device* device, uint64_t iova);
/* Wires vectors 0 to count - 1 of VFIO irq `index` (0 INTx, 1 MSI, 2 MSI-X) to eventfds; -1 leaves one
 * unwired. All of an index in one call: older kernels cannot add vectors. Borrowed: the kernel keeps its own
 * reference. */
int libpostern_device_wire_irqs(struct libpostern_device* device, unsigned index, const int* eventfds,
                                size_t count);
/* A dma-buf of whole pages of a region. *fd is the caller's to close. -ENOTTY: this kernel makes none (before
 * Linux 6.19). */
int libpostern_device_export(struct libpostern_device* device, unsigned region, uint64_t offset,
                             uint64_t length, int writable, int* fd);
/* Interrupts and DMA that the library set up are undone, the command register restored, fds closed. -EBUSY
 * while a grant has a part of it. NULL is fine. The handle is gone unless it is -EBUSY, or this is a forked
 * child. */
int libpostern_device_close(struct libpostern_device* device);

/* ---- policies: what a guarded device fd may do; all else is refused with EPERM ---- */

/* Allows nothing, forward "sandbox". */
int libpostern_policy_new(struct libpostern_policy** policy);
/* Windows, ioctls and forward of one slice. The caller is the driver: a profile with setup or teardown
 * programs, "dma", "irqs" or "reset" is refused rather than followed by half. */
int libpostern_policy_from_profile(struct libpostern_policy** policy,
                                   const struct libpostern_profile* profile, unsigned slice);
/* Adds a window onto `region` (0 to 5: a BAR), in bytes; `flags`: READ and WRITE, and one or more of MMAP,
 * PREAD, DMABUF. */
int libpostern_policy_window(struct libpostern_policy* policy, const char* name, unsigned region,
                             uint64_t offset, uint64_t length, unsigned flags);
/* Adds an ioctl in the words of a profile's "ioctls": a name such as VFIO_DEVICE_GET_INFO, or JSON,
 * {"name": "VFIO_DEVICE_SET_IRQS", "args": [{"field": "index", "equals": 2}]}. Rules on arguments need
 * mseal(2) (Linux 6.10). */
int libpostern_policy_ioctl(struct libpostern_policy* policy, const char* ioctl);
int libpostern_policy_forward(struct libpostern_policy* policy, enum libpostern_forward forward);
/* Grants that were made with it stay. NULL is fine. */
void libpostern_policy_free(struct libpostern_policy* policy);

/* ---- grants ---- */

/* An empty grant with a cgroup of its own, which is its sandbox to the guard: in it, VFIO files that are not
 * in the grant are refused. `sandbox` (NULL: the profile "default") is what a launch looks like, its cgroup
 * limits hold here already; it is copied. A profile with time_limit is refused: the library has no timers,
 * wait with a time-out. `slice` is what the client reads in its manifest. Acquires the guard. With cgroup
 * limits the whole calling process may be moved into a leaf of its own cgroup until the last grant ends, as
 * `postern run` is. */
int libpostern_grant_new(struct libpostern_context* context, const struct libpostern_profile* sandbox,
                         unsigned slice, struct libpostern_grant** grant);
/* 16 hexadecimal digits, as `postern ps` shows it. NULL for NULL. */
const char* libpostern_grant_id(const struct libpostern_grant* grant);
/* Adds the device: a second struct file of it, under the guard and proved to be, as "device", and dma-bufs of
 * its windows as "window.NAME" where the kernel makes them. A policy of DMABUF windows and nothing else gives
 * no "device" where the kernel can map them all: these are guarded then. One device a grant. -EBUSY: a window
 * reaches pages of another live grant's without both saying LIBPOSTERN_SHARED_PAGE. `policy` is copied. */
int libpostern_grant_add_device(struct libpostern_grant* grant, struct libpostern_device* device,
                                const struct libpostern_policy* policy);
/* Adds "dma.NAME": a memfd, sealed with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL, of which the caller has
 * mapped the first `size` bytes for the device at `iova`; libpostern_device_dma_alloc() makes such.
 * Duplicated. */
int libpostern_grant_add_dma(struct libpostern_grant* grant, const char* name, int memfd, uint64_t size,
                             uint64_t iova, unsigned access);
/* Adds "irq.NAME": an eventfd that is wired to `vector` of VFIO irq `index`. Duplicated. */
int libpostern_grant_add_irq(struct libpostern_grant* grant, const char* name, unsigned index,
                             unsigned vector, int eventfd);
/* Adds any other fd under a name of the caller's: no ':' and none of the names above. VFIO's files,
 * iommufds and BPF objects are refused: they would be a way around the policy. Duplicated, not guarded. */
int libpostern_grant_add_fd(struct libpostern_grant* grant, const char* name, int fd);
/* The grant's fd of this name ("device": the guarded duplicate), borrowed until the grant ends. -ENOENT: it
 * has none, as one without a device fd has no "device". */
int libpostern_grant_fd(struct libpostern_grant* grant, const char* name);
/* Refused calls so far on the guarded device fd, or the dma-bufs in its place. */
int libpostern_grant_denied(struct libpostern_grant* grant, uint64_t* count);

/* Starts `argv` in the sandbox with the grant (see postern.h), and returns when exec has succeeded; on an
 * error nothing is left running. `envp` NULL: the caller's environment by the profile's rules, else exactly
 * this one. stdin, stdout and stderr are inherited. One client a grant. It dies with the calling *thread*.
 * *pidfd (may be NULL) is readable when all of the sandbox's pid namespace is gone; borrowed until the grant
 * ends. After this nothing can be added to the grant. Do not reap the library's child with wait(2) of any
 * child: only libpostern_grant_wait() tells how it ended. */
int libpostern_grant_launch(struct libpostern_grant* grant, const char* const* argv, const char* const* envp,
                            int* pidfd);
/* Waits for the launched client. `timeout_ms` -1: for ever. -ETIMEDOUT: it runs on. May be called again;
 * gives the same. */
int libpostern_grant_wait(struct libpostern_grant* grant, int timeout_ms, struct libpostern_exit* exit);
/* Sends a signal to the launched client. -ESRCH: it is gone. */
int libpostern_grant_signal(struct libpostern_grant* grant, int signal);
/* SIGKILL to all that is in the sandbox, launched and admitted. It is gone when this returns. */
int libpostern_grant_kill(struct libpostern_grant* grant);

/* Moves the process behind `pidfd` (pidfd_open(2), SO_PEERPIDFD), with all its threads, into the grant's
 * cgroup: from then on it may receive what forwards to "sandbox", and is refused VFIO files that are not
 * registered. Its children follow. It is killed when the grant ends. */
int libpostern_grant_admit(struct libpostern_grant* grant, int pidfd);
/* Sends the grant over a connected unix socket (stream or seqpacket) of the caller's: SCM_RIGHTS with the
 * names, see docs/libpostern.md; postern_open_socket() of postern.h receives it. Who can receive the device
 * is the policy's forward, which the kernel enforces at the receiver: "sandbox": a process that was admitted
 * or launched; "anyone"; "never" is an error here. At most 253 fds. Blocks as the socket does; -EAGAIN of a
 * socket that does not. May be sent again. After this nothing can be added to the grant. */
int libpostern_grant_vend(struct libpostern_grant* grant, int socket);

/* Every further call on its guarded files, by whoever has them, fails with EPERM. What is mapped stays
 * mapped until its process ends: libpostern_grant_kill(). Idempotent. */
int libpostern_grant_revoke(struct libpostern_grant* grant);
/* Revokes, kills what is in the sandbox, closes all fds, removes the cgroup. The device is not touched:
 * stopping its queue before, and clearing the memory after, is the driver's. Goes on after an error and
 * returns the first; the handle is gone, unless this is a forked child. NULL is fine. */
int libpostern_grant_end(struct libpostern_grant* grant);

#ifdef __cplusplus
}
#endif

/* NOLINTEND(modernize-use-nullptr, modernize-use-using, modernize-deprecated-headers) */

#endif
