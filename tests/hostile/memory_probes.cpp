// SPDX-License-Identifier: Apache-2.0
// The other fds of the grant. The device goes on using the pages of a DMA memfd whatever the client does to
// the file, so its size must be fixed; a manifest that could be rewritten would mislead whoever gets it next.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

using FdAction = Attempt (*)(int fd);

Attempt resize(int fd, off_t by) {
    struct stat status {};
    if (fstat(fd, &status) != 0) return preparation_failed("fstat");
    Attempt attempt = judged(ftruncate(fd, status.st_size + by));
    // Outside the harness goes on with it.
    if (attempt.state == Attempt::State::Succeeded) (void)ftruncate(fd, status.st_size);
    return attempt;
}

Attempt shrink(int fd) {
    return resize(fd, -static_cast<off_t>(kPage));
}

Attempt grow(int fd) {
    return resize(fd, static_cast<off_t>(kPage));
}

Attempt add_seal(int fd) {
    return judged(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
}

Attempt write_start(int fd) {
    char byte = 0;
    if (pread(fd, &byte, 1, 0) < 0) return preparation_failed("pread");
    return judged(pwrite(fd, &byte, 1, 0));
}

Attempt map_writable(int fd) {
    return map(fd, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
}

Attempt write_reopened(int fd) {
    const UniqueFd again(open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDWR | O_CLOEXEC));
    if (!again) return judged(-1, "open");
    return write_start(again.get());
}

Attempt on(int fd, FdAction action, const char* absent) {
    return fd < 0 ? nothing(absent) : action(fd);
}

Control on_memfd(FdAction action) {
    return {"the same on a memfd of its own", [action](const Target&) {
                const int fd = control_memfd();
                return fd < 0 ? preparation_failed("memfd") : action(fd);
            }};
}

off_t dmabuf_size(const Target& target) {
    return lseek(target.dmabuf, 0, SEEK_END);
}

Attempt map_dmabuf(const Target& target, off_t start_from_end, size_t length) {
    if (target.dmabuf < 0) return nothing("the grant has no dma-buf");
    const off_t size = dmabuf_size(target);
    if (size < 0) return preparation_failed("lseek");
    const off_t start = std::max<off_t>(0, size + start_from_end);
    return map(target.dmabuf, length, PROT_READ, MAP_SHARED, start);
}

Attempt write_dmabuf(const Target& target) {
    if (target.dmabuf < 0) return nothing("the grant has no dma-buf");
    const char byte = 0;
    return judged(pwrite(target.dmabuf, &byte, 1, 0));
}

}  // namespace

void add_memory_probes(Probes& probes) {
    const char* no_dma = "the grant has no DMA memory";
    const struct {
        const char* name;
        const char* what;
        FdAction action;
    } dma_ways[] = {{"dma-shrink", "ftruncate: a DMA memfd a page smaller", shrink},
                    {"dma-grow", "ftruncate: a DMA memfd a page larger", grow},
                    {"dma-seal", "F_ADD_SEALS on a DMA memfd", add_seal}};
    for (const auto& way : dma_ways) {
        probes.push_back(
            {.name = way.name,
             .group = "memory",
             .what = way.what,
             .attempt = [action = way.action, no_dma](const Target& t) { return on(t.dma, action, no_dma); },
             .control = on_memfd(way.action),
             .inherent = {EPERM},
             .inherent_why = "postern seals it, whoever the client is"});
    }
    const struct {
        const char* name;
        const char* what;
        FdAction action;
    } manifest_ways[] = {{"manifest-write", "pwrite to the manifest", write_start},
                         {"manifest-map", "a writable shared mapping of the manifest", map_writable},
                         {"manifest-reopen", "pwrite to the manifest, opened again", write_reopened},
                         {"manifest-grow", "ftruncate of the manifest", grow}};
    for (const auto& way : manifest_ways) {
        probes.push_back(
            {.name = way.name,
             .group = "memory",
             .what = way.what,
             .attempt = [action = way.action](const Target& t) { return on(t.manifest, action, ""); },
             .control = on_memfd(way.action),
             // An fd that is not open for writing says EBADF to write, EINVAL to ftruncate.
             .refusals = {EBADF, EINVAL},
             .inherent = {EBADF, EINVAL, EPERM, EACCES},
             .inherent_why = "postern seals it, whoever the client is"});
    }
    const char* bounds =
        "a dma-buf checks its bounds itself, and cannot map BARs before the kernel learns to";
    probes.push_back({.name = "dmabuf-beyond",
                      .group = "memory",
                      .what = "mmap of the page after a dma-buf's end",
                      .attempt = [](const Target& t) { return map_dmabuf(t, 0, kPage); },
                      .control = mmap_control(),
                      .inherent = {EINVAL},
                      .inherent_why = bounds,
                      .kernel_first = true});
    probes.push_back(
        {.name = "dmabuf-larger",
         .group = "memory",
         .what = "mmap of a dma-buf's last page and one more",
         .attempt = [](const Target& t) { return map_dmabuf(t, -static_cast<off_t>(kPage), 2 * kPage); },
         .control = mmap_control(),
         .inherent = {EINVAL},
         .inherent_why = bounds,
         .kernel_first = true});
    probes.push_back({.name = "dmabuf-write",
                      .group = "memory",
                      .what = "pwrite to a dma-buf",
                      .attempt = write_dmabuf,
                      .control = on_memfd(write_start),
                      .inherent = {EINVAL, EBADF, ESPIPE},
                      .inherent_why = "dma-bufs have no write",
                      .kernel_first = true});
}

}  // namespace postern::hostile
