// SPDX-License-Identifier: Apache-2.0
// Every system call that reads or writes at a place in a file. On a plain vfio device file all of
// configuration space and of the BARs can be had this way.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "tests/hostile/device_ops.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

/// One way to read from or write to `fd` at `offset`.
using Access = Attempt (*)(int fd, off_t offset);

constexpr off_t kConfig = region_start(VFIO_PCI_CONFIG_REGION_INDEX);
/// Where writes go: the latency timer, which PCI Express ignores, as the write of a byte there changes
/// nothing.
constexpr off_t kConfigScratch = kConfig + PCI_LATENCY_TIMER;

constexpr size_t kRead = sizeof(uint32_t);
constexpr size_t kWritten = 1;

/// A call that takes a vector, with one of `size` bytes.
template <typename Call>
Attempt by_vector(size_t size, Call call) {
    uint32_t value = 0;
    const iovec vector{&value, size};
    return judged(call(&vector));
}

Attempt by_read(int fd, off_t) {
    uint32_t value = 0;
    return judged(read(fd, &value, sizeof value));
}

Attempt by_readv(int fd, off_t) {
    return by_vector(kRead, [=](const iovec* vector) { return readv(fd, vector, 1); });
}

Attempt by_pread(int fd, off_t offset) {
    uint32_t value = 0;
    return judged(pread(fd, &value, sizeof value, offset));
}

Attempt by_preadv(int fd, off_t offset) {
    return by_vector(kRead, [=](const iovec* vector) { return preadv(fd, vector, 1, offset); });
}

Attempt by_preadv2(int fd, off_t offset) {
    return by_vector(kRead, [=](const iovec* vector) { return preadv2(fd, vector, 1, offset, 0); });
}

/// -1 is the file's own position.
Attempt by_preadv2_position(int fd, off_t) {
    return by_preadv2(fd, -1);
}

Attempt by_write(int fd, off_t) {
    const char value = 0;
    return judged(write(fd, &value, sizeof value));
}

Attempt by_writev(int fd, off_t) {
    return by_vector(kWritten, [=](const iovec* vector) { return writev(fd, vector, 1); });
}

Attempt by_pwrite(int fd, off_t offset) {
    const char value = 0;
    return judged(pwrite(fd, &value, sizeof value, offset));
}

Attempt by_pwritev(int fd, off_t offset) {
    return by_vector(kWritten, [=](const iovec* vector) { return pwritev(fd, vector, 1, offset); });
}

Attempt by_pwritev2(int fd, off_t offset) {
    return by_vector(kWritten, [=](const iovec* vector) { return pwritev2(fd, vector, 1, offset, 0); });
}

Attempt by_sendfile_from(int fd, off_t offset) {
    int ends[2];
    if (pipe(ends) != 0) return preparation_failed("pipe");
    return judged(sendfile(ends[1], fd, &offset, 4));
}

Attempt by_sendfile_to(int fd, off_t) {
    const int source = control_memfd();
    if (source < 0) return preparation_failed("memfd");
    off_t start = 0;
    return judged(sendfile(fd, source, &start, 1));
}

Attempt by_splice_from(int fd, off_t offset) {
    int ends[2];
    if (pipe(ends) != 0) return preparation_failed("pipe");
    return judged(splice(fd, &offset, ends[1], nullptr, 4, 0));
}

Attempt by_splice_to(int fd, off_t offset) {
    int ends[2];
    if (pipe(ends) != 0 || write(ends[1], "", 1) != 1) return preparation_failed("pipe");
    return judged(splice(ends[0], nullptr, fd, &offset, 1, 0));
}

Attempt by_copy_from(int fd, off_t offset) {
    const int sink = control_memfd();
    if (sink < 0) return preparation_failed("memfd");
    off_t start = 0;
    return judged(copy_file_range(fd, &offset, sink, &start, 4, 0));
}

Attempt by_copy_to(int fd, off_t offset) {
    const int source = control_memfd();
    if (source < 0) return preparation_failed("memfd");
    off_t start = 0;
    return judged(copy_file_range(source, &start, fd, &offset, 1, 0));
}

Attempt by_fallocate(int fd, off_t) {
    return judged(fallocate(fd, 0, 0, 4096));
}

Attempt by_ftruncate(int fd, off_t) {
    return judged(ftruncate(fd, 4096));
}

Attempt by_aio(int fd, off_t offset, uint16_t opcode, size_t size) {
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, 1, &context) < 0) return judged(-1, "io_setup");
    uint32_t value = 0;
    iocb request{};
    request.aio_fildes = static_cast<uint32_t>(fd);
    request.aio_lio_opcode = opcode;
    request.aio_buf = reinterpret_cast<uint64_t>(&value);
    request.aio_nbytes = size;
    request.aio_offset = offset;
    iocb* requests[] = {&request};
    if (syscall(SYS_io_submit, context, 1, requests) < 0) return judged(-1, "io_submit");
    io_event event{};
    if (syscall(SYS_io_getevents, context, 1, 1, &event, nullptr) < 0) return judged(-1, "io_getevents");
    if (event.res < 0) return failed(static_cast<int>(-event.res), "completion");
    return succeeded();
}

Attempt by_aio_read(int fd, off_t offset) {
    return by_aio(fd, offset, IOCB_CMD_PREAD, 4);
}

Attempt by_aio_write(int fd, off_t offset) {
    return by_aio(fd, offset, IOCB_CMD_PWRITE, 1);
}

Control on_memfd(const char* what, Access access) {
    return {std::string(what) + " on a memfd", [access](const Target&) {
                const int fd = control_memfd();
                return fd < 0 ? preparation_failed("memfd") : access(fd, 0);
            }};
}

Attempt access_first_bar(const Target& target, Access access) {
    const Window* own = target.mapped();
    const off_t start = region_start(own == nullptr ? 0 : own->region);
    if (overlaps_a_window(target, start, sizeof(uint32_t))) return nothing("there is a window of this grant");
    return access(target.device, start);
}

/// The edges of a window that the profile grants by pread and pwrite. `shift` is from the window's start, or
/// from its end when `from_end`.
Attempt at_edge(const Target& target, off_t shift, bool from_end, size_t size) {
    const Window* window = target.for_pread();
    if (window == nullptr) return nothing("the profile has no window for pread");
    const off_t start = window->device_offset() + (from_end ? static_cast<off_t>(window->length) : 0) + shift;
    if (start < region_start(window->region)) return nothing("the window is at the start of its region");
    std::array<char, 65536> bytes{};
    return judged(pread(target.device, bytes.data(), size, start));
}

Attempt inside_pread_window(const Target& target) {
    const Window* window = target.for_pread();
    if (window == nullptr) return nothing("the profile has no window for pread");
    std::array<char, 8> bytes{};
    return judged(
        pread(target.device, bytes.data(), std::min(window->length, bytes.size()), window->device_offset()));
}

Attempt longer_than_pread_window(const Target& target) {
    const Window* window = target.for_pread();
    return at_edge(target, 0, false, window == nullptr ? 0 : window->length + 1);
}

Attempt write_read_only_pread_window(const Target& target) {
    for (const Window& window : target.windows) {
        if (!window.by_pread || window.writable) continue;
        const char value = 0;
        return judged(pwrite(target.device, &value, 1, window.device_offset()));
    }
    return nothing("the profile has no read-only window for pread");
}

/// A window that is only granted by mmap: reading it is another right.
Attempt pread_mmap_window(const Target& target) {
    const Window* window = target.mapped();
    if (window == nullptr) return nothing("the profile has no window to map");
    if (window->by_pread) return nothing("the window may be read too");
    uint32_t value = 0;
    return judged(pread(target.device, &value, sizeof value, window->device_offset()));
}

struct WayToRead {
    const char* name;
    const char* what;
    const char* call;
    Access access;
    off_t offset;
    std::vector<int> inherent = {};
    const char* why = "";
    bool kernel_first = false;
};

}  // namespace

void add_read_probes(Probes& probes) {
    const char* at_zero = "it reads at position 0, which is BAR 0, and this device has none";
    const char* no_splice = "vfio device files cannot be spliced";
    const char* no_aio = "vfio device files have no asynchronous reads";
    const std::vector<int> no_copy{EINVAL, EXDEV, EOPNOTSUPP, EBADF};
    const char* no_regular = "it is for regular files";
    const WayToRead ways[] = {
        {"read", "read(2)", "read", by_read, 0, {EINVAL}, at_zero},
        {"readv", "readv(2)", "readv", by_readv, 0, {EINVAL}, at_zero},
        {"pread-config", "pread of configuration space", "pread", by_pread, kConfig},
        {"preadv", "preadv of configuration space", "preadv", by_preadv, kConfig},
        {"preadv2", "preadv2 of configuration space", "preadv2", by_preadv2, kConfig},
        {"preadv2-position",
         "preadv2 at the file's position",
         "preadv2",
         by_preadv2_position,
         0,
         {EINVAL},
         at_zero},
        {"write", "write(2)", "write", by_write, 0, {EINVAL}, at_zero},
        {"writev", "writev(2)", "writev", by_writev, 0, {EINVAL}, at_zero},
        {"pwrite-config", "pwrite to configuration space", "pwrite", by_pwrite, kConfigScratch},
        {"pwritev", "pwritev to configuration space", "pwritev", by_pwritev, kConfigScratch},
        {"pwritev2", "pwritev2 to configuration space", "pwritev2", by_pwritev2, kConfigScratch},
        {"sendfile-from",
         "sendfile from configuration space to a pipe",
         "sendfile",
         by_sendfile_from,
         kConfig,
         {EINVAL},
         no_splice},
        {"splice-from",
         "splice of configuration space to a pipe",
         "splice",
         by_splice_from,
         kConfig,
         {EINVAL},
         no_splice},
        {"splice-to",
         "splice of a pipe to configuration space",
         "splice",
         by_splice_to,
         kConfigScratch,
         {EINVAL},
         no_splice},
        {"copy-file-range-from", "copy_file_range of configuration space", "copy_file_range", by_copy_from,
         kConfig, no_copy, no_regular, true},
        {"copy-file-range-to", "copy_file_range to configuration space", "copy_file_range", by_copy_to,
         kConfigScratch, no_copy, no_regular, true},
        {"fallocate",
         "fallocate of the device file",
         "fallocate",
         by_fallocate,
         0,
         {ENODEV, EOPNOTSUPP},
         no_regular},
        {"ftruncate",
         "ftruncate of the device file",
         "ftruncate",
         by_ftruncate,
         0,
         {EINVAL},
         no_regular,
         true},
        {"aio-read",
         "io_submit of a read of configuration space",
         "io_submit",
         by_aio_read,
         kConfig,
         {EINVAL},
         no_aio,
         true},
        {"aio-write",
         "io_submit of a write to configuration space",
         "io_submit",
         by_aio_write,
         kConfigScratch,
         {EINVAL},
         no_aio,
         true},
    };
    for (const WayToRead& way : ways) {
        probes.push_back({.name = way.name,
                          .group = "read",
                          .what = way.what,
                          .attempt = [access = way.access, offset = way.offset](
                                         const Target& t) { return access(t.device, offset); },
                          .control = on_memfd(way.call, way.access),
                          .inherent = way.inherent,
                          .inherent_why = way.why,
                          .kernel_first = way.kernel_first});
    }
    probes.push_back({.name = "sendfile-to",
                      .group = "read",
                      .what = "sendfile of a memfd to the device file",
                      .attempt = [](const Target& t) { return by_sendfile_to(t.device, 0); },
                      .control = on_memfd("sendfile", by_sendfile_to),
                      .inherent = {EINVAL},
                      .inherent_why = at_zero});
    const struct {
        const char* name;
        const char* what;
        const char* call;
        Access access;
    } bar_ways[] = {{"pread-bar", "pread of the start of the doorbell BAR", "pread", by_pread},
                    {"preadv2-bar", "preadv2 of the start of the doorbell BAR", "preadv2", by_preadv2},
                    {"pwrite-bar", "pwrite to the start of the doorbell BAR", "pwrite", by_pwrite}};
    for (const auto& way : bar_ways) {
        probes.push_back(
            {.name = way.name,
             .group = "read",
             .what = way.what,
             .attempt = [access = way.access](const Target& t) { return access_first_bar(t, access); },
             .control = on_memfd(way.call, way.access)});
    }
    probes.push_back({.name = "pread-msix-bar",
                      .group = "read",
                      .what = "pread of BAR 1, the MSI-X table of a virtio device",
                      .attempt = [](const Target& t) { return by_pread(t.device, region_start(1)); },
                      .control = on_memfd("pread", by_pread),
                      .inherent = {EINVAL},
                      .inherent_why = "this device has no BAR 1"});
    probes.push_back({.name = "pread-mmap-window",
                      .group = "read",
                      .what = "pread of a window that is granted by mmap",
                      .attempt = pread_mmap_window,
                      .control = on_memfd("pread", by_pread)});
    probes.push_back({.name = "pwrite-other-slice",
                      .group = "read",
                      .what = "pwrite to another page of the doorbell BAR",
                      .attempt = [](const Target& t) { return by_pwrite(t.device, foreign_page(t)); },
                      .control = on_memfd("pwrite", by_pwrite)});

    const Control inside{"pread inside the window", inside_pread_window};
    const struct {
        const char* name;
        const char* what;
        off_t shift;
        bool from_end;
        size_t size;
    } edges[] = {
        {"pread-edge-before", "pread of the byte before a pread window", -1, false, 1},
        {"pread-edge-after", "pread of the byte after a pread window", 0, true, 1},
        {"pread-across-start", "pread of two bytes across the start of a pread window", -1, false, 2},
        {"pread-across-end", "pread of two bytes across the end of a pread window", -1, true, 2},
        {"pread-other-region", "pread at the window's offset in the region after", off_t{1} << 40, false, 1}};
    for (const auto& edge : edges) {
        probes.push_back(
            {.name = edge.name,
             .group = "read",
             .what = edge.what,
             .attempt = [edge](const Target& t) { return at_edge(t, edge.shift, edge.from_end, edge.size); },
             .control = inside,
             .inherent = {EINVAL, EIO},
             .inherent_why = "there is nothing at that place of the device"});
    }
    probes.push_back({.name = "pread-longer",
                      .group = "read",
                      .what = "pread of a byte more than a pread window",
                      .attempt = longer_than_pread_window,
                      .control = inside});
    probes.push_back({.name = "pwrite-read-only-window",
                      .group = "read",
                      .what = "pwrite to a read-only pread window",
                      .attempt = write_read_only_pread_window,
                      .control = inside});
    for (Access access : {by_readv, by_preadv2}) {
        const bool is_readv = access == by_readv;
        probes.push_back(
            {.name = is_readv ? "readv-pread-window" : "preadv2-pread-window",
             .group = "read",
             .what = is_readv ? "readv where only pread is granted" : "preadv2 where only pread is granted",
             .attempt =
                 [access](const Target& t) {
                     const Window* window = t.for_pread();
                     if (window == nullptr) return nothing("the profile has no window for pread");
                     return access(t.device, window->device_offset());
                 },
             .control = inside,
             .inherent = {EINVAL},
             .inherent_why = at_zero});
    }
}

}  // namespace postern::hostile
