// SPDX-License-Identifier: Apache-2.0
// io_uring(7): reads and writes that are done in io_uring_enter(2), by a worker thread or by a polling kernel
// thread, none of which looks like a read to who only knows system call numbers.
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "tests/hostile/device_ops.h"
#include "tests/hostile/probe.h"
#include "tests/hostile/uring.h"

namespace postern::hostile {
namespace {

constexpr off_t kConfig = region_start(VFIO_PCI_CONFIG_REGION_INDEX);
constexpr off_t kConfigScratch = kConfig + PCI_LATENCY_TIMER;

/// One way to use io_uring on `fd` at `offset`.
using Access = Attempt (*)(int fd, off_t offset);

void prepare(io_uring_sqe* entry, uint8_t opcode, int fd, void* buffer, uint32_t size, off_t offset) {
    entry->opcode = opcode;
    entry->fd = fd;
    entry->addr = reinterpret_cast<uint64_t>(buffer);
    entry->len = size;
    entry->off = static_cast<uint64_t>(offset);
}

Attempt finish(Uring& ring, uint64_t user_data = 0) {
    if (!ring.run()) return judged(-1, "io_uring_enter");
    const int result = ring.result(user_data);
    return result < 0 ? failed(-result, "completion") : succeeded();
}

Attempt simple(int fd, off_t offset, uint8_t opcode, uint32_t size, uint8_t entry_flags,
               uint32_t ring_flags) {
    Uring ring;
    if (!ring.open(ring_flags)) return judged(-1, "io_uring_setup");
    uint32_t value = 0;
    io_uring_sqe* entry = ring.next();
    prepare(entry, opcode, fd, &value, size, offset);
    entry->flags = entry_flags;
    return finish(ring);
}

Attempt by_read(int fd, off_t offset) {
    return simple(fd, offset, IORING_OP_READ, 4, 0, 0);
}

Attempt by_write(int fd, off_t offset) {
    return simple(fd, offset, IORING_OP_WRITE, 1, 0, 0);
}

Attempt by_worker(int fd, off_t offset) {
    return simple(fd, offset, IORING_OP_READ, 4, IOSQE_ASYNC, 0);
}

Attempt by_sqpoll(int fd, off_t offset) {
    return simple(fd, offset, IORING_OP_READ, 4, 0, IORING_SETUP_SQPOLL);
}

Attempt by_readv(int fd, off_t offset) {
    Uring ring;
    if (!ring.open(0)) return judged(-1, "io_uring_setup");
    uint32_t value = 0;
    iovec vector{&value, sizeof value};
    prepare(ring.next(), IORING_OP_READV, fd, &vector, 1, offset);
    return finish(ring);
}

Attempt by_registered_file(int fd, off_t offset) {
    Uring ring;
    if (!ring.open(0)) return judged(-1, "io_uring_setup");
    if (syscall(SYS_io_uring_register, ring.fd(), IORING_REGISTER_FILES, &fd, 1) < 0) {
        return judged(-1, "register file");
    }
    uint32_t value = 0;
    io_uring_sqe* entry = ring.next();
    prepare(entry, IORING_OP_READ, 0, &value, sizeof value, offset);
    entry->flags = IOSQE_FIXED_FILE;
    return finish(ring);
}

Attempt by_registered_buffer(int fd, off_t offset) {
    Uring ring;
    if (!ring.open(0)) return judged(-1, "io_uring_setup");
    void* buffer = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) return preparation_failed("mmap");
    const iovec vector{buffer, kPage};
    if (syscall(SYS_io_uring_register, ring.fd(), IORING_REGISTER_BUFFERS, &vector, 1) < 0) {
        return judged(-1, "register buffer");
    }
    prepare(ring.next(), IORING_OP_READ_FIXED, fd, buffer, 4, offset);
    return finish(ring);
}

/// A poll that is ready at once, and linked to it the read: it is issued when no system call is at hand.
Attempt by_poll_link(int fd, off_t offset) {
    Uring ring;
    int ends[2];
    if (!ring.open(0)) return judged(-1, "io_uring_setup");
    if (pipe(ends) != 0 || write(ends[1], "", 1) != 1) return preparation_failed("pipe");
    io_uring_sqe* wait = ring.next();
    wait->opcode = IORING_OP_POLL_ADD;
    wait->fd = ends[0];
    wait->poll32_events = POLLIN;
    wait->flags = IOSQE_IO_LINK;
    wait->user_data = 1;
    uint32_t value = 0;
    prepare(ring.next(), IORING_OP_READ, fd, &value, sizeof value, offset);
    return finish(ring);
}

Attempt by_splice(int fd, off_t offset) {
    Uring ring;
    int ends[2];
    if (!ring.open(0)) return judged(-1, "io_uring_setup");
    if (pipe(ends) != 0) return preparation_failed("pipe");
    io_uring_sqe* entry = ring.next();
    entry->opcode = IORING_OP_SPLICE;
    entry->splice_fd_in = fd;
    entry->splice_off_in = static_cast<uint64_t>(offset);
    entry->fd = ends[1];
    entry->off = static_cast<uint64_t>(-1);
    entry->len = 4;
    return finish(ring);
}

/// io_uring finishes a request in task work, at the end of whatever system call the task is in, with the
/// registers of that call still saved. A read that a timer starts is therefore made to end inside a pread64
/// that is granted, in the hope of being taken for it.
Attempt during_pread(int fd, off_t offset, off_t granted) {
    Uring ring;
    if (!ring.open(0)) return judged(-1, "io_uring_setup");
    __kernel_timespec delay{};
    delay.tv_nsec = 20'000'000;
    io_uring_sqe* timer = ring.next();
    prepare(timer, IORING_OP_TIMEOUT, -1, &delay, 1, 0);
    timer->timeout_flags = IORING_TIMEOUT_ETIME_SUCCESS;  // Linux 5.16; else its end breaks the link
    timer->flags = IOSQE_IO_LINK;
    timer->user_data = 1;
    uint32_t value = 0;
    prepare(ring.next(), IORING_OP_READ, fd, &value, sizeof value, offset);
    if (!ring.submit()) return judged(-1, "io_uring_enter");
    // Bounded: the alarm of the runner is for hangs. What these return does not matter, only that they are in
    // progress.
    for (unsigned i = 0; i < 10'000'000 && ring.reap() < 2; ++i) {
        char byte = 0;
        (void)!pread(fd, &byte, 1, granted);
    }
    if (ring.reap() < 2) return impossible("the linked read never ended");
    const int result = ring.result(0);
    return result < 0 ? failed(-result, "completion") : succeeded();
}

Attempt during_granted_pread(const Target& target) {
    const Window* window = target.for_pread();
    if (window == nullptr) return nothing("the profile has no window for pread");
    return during_pread(target.device, kConfig, window->device_offset());
}

Attempt during_pread_of_memfd(const Target&) {
    const int fd = control_memfd();
    return fd < 0 ? preparation_failed("memfd") : during_pread(fd, 0, 0);
}

}  // namespace

void add_uring_probes(Probes& probes) {
    const char* no_splice = "vfio device files cannot be spliced";
    const struct {
        const char* name;
        const char* what;
        Access access;
        off_t offset;
        std::vector<int> inherent;
    } ways[] = {
        {"uring-read", "io_uring read of configuration space", by_read, kConfig, {}},
        {"uring-readv", "io_uring readv of configuration space", by_readv, kConfig, {}},
        {"uring-write", "io_uring write to configuration space", by_write, kConfigScratch, {}},
        {"uring-worker", "io_uring read by a worker thread", by_worker, kConfig, {}},
        {"uring-sqpoll", "io_uring read by the polling kernel thread", by_sqpoll, kConfig, {}},
        {"uring-registered-file", "io_uring read through a registered file", by_registered_file, kConfig, {}},
        {"uring-registered-buffer",
         "io_uring read into a registered buffer",
         by_registered_buffer,
         kConfig,
         {}},
        {"uring-poll-link", "io_uring read linked to a poll", by_poll_link, kConfig, {}},
        {"uring-splice", "io_uring splice of configuration space", by_splice, kConfig, {EINVAL}},
    };
    for (const auto& way : ways) {
        probes.push_back({.name = way.name,
                          .group = "io_uring",
                          .what = way.what,
                          .attempt = [access = way.access, offset = way.offset](
                                         const Target& t) { return access(t.device, offset); },
                          .control = {"the same on a memfd",
                                      [access = way.access](const Target&) {
                                          const int fd = control_memfd();
                                          return fd < 0 ? preparation_failed("memfd") : access(fd, 0);
                                      }},
                          .inherent = way.inherent,
                          .inherent_why = way.inherent.empty() ? "" : no_splice});
    }
    probes.push_back({.name = "uring-during-pread",
                      .group = "io_uring",
                      .what = "io_uring read that ends inside a granted pread64",
                      .attempt = during_granted_pread,
                      .control = {"the same on a memfd", during_pread_of_memfd}});
}

}  // namespace postern::hostile
