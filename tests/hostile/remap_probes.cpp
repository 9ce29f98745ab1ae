// SPDX-License-Identifier: Apache-2.0
// What can be done to a mapping that was granted: more rights, more bytes, other bytes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "tests/hostile/device_ops.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

using MappingAction = Attempt (*)(const Target&, void* mapping, const Window& window);

Attempt with_window(const Target& target, const Window* window, int prot, MappingAction action) {
    if (window == nullptr) return nothing("the profile has no such window");
    void* mapping = mmap(nullptr, window->length, prot, MAP_SHARED, window->mmap_fd, window->mmap_offset);
    if (mapping == MAP_FAILED) return preparation_failed("mmap of the window");
    return action(target, mapping, *window);
}

Attempt protect(void* mapping, size_t length, int prot) {
    return judged(mprotect(mapping, length, prot));
}

Attempt protect_by_key(void* mapping, size_t length, int prot) {
    // Key -1 is mprotect(2) by another number: no protection key is needed to ask.
    return judged(syscall(SYS_pkey_mprotect, mapping, length, prot, -1));
}

/// The page offset, in the file of the window, of what is not the window.
size_t foreign_page_index(const Target& target) {
    return static_cast<size_t>(foreign_page(target)) / kPage;
}

Attempt remap_pages(const Target& target, void* mapping, const Window& window) {
    if (window.mmap_fd != target.device) return nothing("the window is mapped from a dma-buf");
    return judged(syscall(SYS_remap_file_pages, mapping, kPage, 0, foreign_page_index(target), 0));
}

Attempt grow(const Target&, void* mapping, const Window& window) {
    const void* grown = mremap(mapping, window.length, window.length + kPage, MREMAP_MAYMOVE);
    return judged(grown == MAP_FAILED ? -1 : 0);
}

Attempt duplicate_larger(const Target&, void* mapping, const Window& window) {
    const void* copy = mremap(mapping, 0, window.length + kPage, MREMAP_MAYMOVE);
    return judged(copy == MAP_FAILED ? -1 : 0);
}

Attempt move_larger(const Target&, void* mapping, const Window& window) {
    void* place = mmap(nullptr, window.length + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return preparation_failed("mmap of a place");
    const void* moved =
        mremap(mapping, window.length, window.length + kPage, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    return judged(moved == MAP_FAILED ? -1 : 0);
}

/// Moving the window elsewhere without another byte is nobody's loss: the control of the mremap probes.
Attempt move_own(const Target& target) {
    return with_window(target, target.mapped(), target.mapped() == nullptr ? 0 : target.mapped()->prot(),
                       [](const Target&, void* mapping, const Window& window) {
                           void* place =
                               mmap(nullptr, window.length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                           if (place == MAP_FAILED) return preparation_failed("mmap of a place");
                           const void* moved = mremap(mapping, window.length, window.length,
                                                      MREMAP_MAYMOVE | MREMAP_FIXED, place);
                           return judged(moved == MAP_FAILED ? -1 : 0);
                       });
}

Attempt protect_down_and_up(const Target& target, Attempt (*change)(void*, size_t, int)) {
    const Window* own = target.mapped();
    if (own == nullptr) return nothing("the profile has no window to map");
    void* mapping = mmap(nullptr, own->length, own->prot(), MAP_SHARED, own->mmap_fd, own->mmap_offset);
    if (mapping == MAP_FAILED) return preparation_failed("mmap of the window");
    if (mprotect(mapping, own->length, PROT_NONE) != 0) return judged(-1, "PROT_NONE");
    return change(mapping, own->length, own->prot());
}

Attempt remap_pages_of_memfd(const Target&) {
    const int fd = control_memfd();
    if (fd < 0 || ftruncate(fd, 2 * kPage) != 0) return preparation_failed("memfd");
    void* mapping = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED) return preparation_failed("mmap of a memfd");
    return judged(syscall(SYS_remap_file_pages, mapping, kPage, 0, 1, 0));
}

/// /proc/self/mem writes with FOLL_FORCE, past the protection of ordinary mappings.
Attempt write_through_proc(const Target&, void* mapping, const Window&) {
    const int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    if (memory < 0) return judged(-1, "open /proc/self/mem");
    const uint32_t zero = 0;
    return judged(pwrite(memory, &zero, sizeof zero, reinterpret_cast<off_t>(mapping)), "write");
}

Attempt write_anonymous_through_proc(const Target& target) {
    // Writable: whether the kernel forces a write to a read-only page is a matter of its configuration.
    void* mapping = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return preparation_failed("mmap");
    return write_through_proc(target, mapping, {});
}

Attempt write_by_vm_writev(const Target&, void* mapping, const Window&) {
    uint32_t zero = 0;
    const iovec local{&zero, sizeof zero};
    const iovec remote{mapping, sizeof zero};
    return judged(process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
}

Attempt vm_writev_own(const Target& target) {
    void* mapping = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return preparation_failed("mmap");
    return write_by_vm_writev(target, mapping, {});
}

const Control kProtectControl{"PROT_NONE and back to what is granted",
                              [](const Target& t) { return protect_down_and_up(t, protect); }};
const Control kPkeyControl{"the same with pkey_mprotect",
                           [](const Target& t) { return protect_down_and_up(t, protect_by_key); }};
const Control kMoveControl{"mremap that only moves the window", move_own};

int own_prot(const Target& target) {
    return target.mapped() == nullptr ? 0 : target.mapped()->prot();
}

constexpr char kNoExec[] = "since Linux 6.17 the file system behind device files is noexec";
constexpr char kNoGrow[] = "vfio mappings are VM_DONTEXPAND";

}  // namespace

void add_remap_probes(Probes& probes) {
    probes.push_back({.name = "mprotect-upgrade",
                      .group = "remap",
                      .what = "mprotect: a read-only window to writable",
                      .attempt =
                          [](const Target& t) {
                              return with_window(t, t.read_only(), PROT_READ,
                                                 [](const Target&, void* mapping, const Window& window) {
                                                     return protect(mapping, window.length,
                                                                    PROT_READ | PROT_WRITE);
                                                 });
                          },
                      .control = kProtectControl});
    probes.push_back({.name = "mprotect-none-upgrade",
                      .group = "remap",
                      .what = "mprotect: a read-only window, mapped PROT_NONE, to writable",
                      .attempt =
                          [](const Target& t) {
                              return with_window(t, t.read_only(), PROT_NONE,
                                                 [](const Target&, void* mapping, const Window& window) {
                                                     return protect(mapping, window.length, PROT_WRITE);
                                                 });
                          },
                      .control = kProtectControl});
    probes.push_back({.name = "pkey-mprotect-upgrade",
                      .group = "remap",
                      .what = "pkey_mprotect: a read-only window to writable",
                      .attempt =
                          [](const Target& t) {
                              return with_window(t, t.read_only(), PROT_READ,
                                                 [](const Target&, void* mapping, const Window& window) {
                                                     return protect_by_key(mapping, window.length,
                                                                           PROT_READ | PROT_WRITE);
                                                 });
                          },
                      .control = kPkeyControl});
    probes.push_back({.name = "mprotect-exec",
                      .group = "remap",
                      .what = "mprotect: the window to executable",
                      .attempt =
                          [](const Target& t) {
                              return with_window(t, t.mapped(), own_prot(t),
                                                 [](const Target&, void* mapping, const Window& window) {
                                                     return protect(mapping, window.length,
                                                                    PROT_READ | PROT_EXEC);
                                                 });
                          },
                      .control = kProtectControl,
                      .inherent = {EPERM, EACCES},
                      .inherent_why = kNoExec});
    probes.push_back({.name = "pkey-mprotect-exec",
                      .group = "remap",
                      .what = "pkey_mprotect: the window to executable",
                      .attempt =
                          [](const Target& t) {
                              return with_window(t, t.mapped(), own_prot(t),
                                                 [](const Target&, void* mapping, const Window& window) {
                                                     return protect_by_key(mapping, window.length,
                                                                           PROT_READ | PROT_EXEC);
                                                 });
                          },
                      .control = kPkeyControl,
                      .inherent = {EPERM, EACCES},
                      .inherent_why = kNoExec});
    probes.push_back(
        {.name = "remap-file-pages",
         .group = "remap",
         .what = "remap_file_pages: the mapped window to another page of the BAR",
         .attempt = [](const Target& t) { return with_window(t, t.mapped(), own_prot(t), remap_pages); },
         .control = {"remap_file_pages of a memfd", remap_pages_of_memfd}});
    const struct {
        const char* name;
        const char* what;
        MappingAction action;
    } remaps[] = {{"mremap-grow", "mremap: the window and a page more", grow},
                  {"mremap-duplicate", "mremap with old_size 0: a second, larger mapping", duplicate_larger},
                  {"mremap-move-larger", "mremap: a page more, at a fixed place", move_larger}};
    for (const auto& remap : remaps) {
        probes.push_back(
            {.name = remap.name,
             .group = "remap",
             .what = remap.what,
             .attempt = [action = remap.action](
                            const Target& t) { return with_window(t, t.mapped(), own_prot(t), action); },
             .control = kMoveControl,
             .inherent = {EFAULT, EINVAL},
             .inherent_why = kNoGrow,
             .kernel_first = true});
    }
    probes.push_back(
        {.name = "proc-mem-read-only-window",
         .group = "remap",
         .what = "a write to a read-only window through /proc/self/mem",
         .attempt =
             [](const Target& t) { return with_window(t, t.read_only(), PROT_READ, write_through_proc); },
         .control = {"the same to a private page", write_anonymous_through_proc},
         .inherent = {EIO},
         .inherent_why = "get_user_pages does not reach device memory",
         .kernel_first = true});
    probes.push_back(
        {.name = "vm-writev-read-only-window",
         .group = "remap",
         .what = "a write to a read-only window by process_vm_writev to itself",
         .attempt =
             [](const Target& t) { return with_window(t, t.read_only(), PROT_READ, write_by_vm_writev); },
         .control = {"the same to a private page", vm_writev_own},
         .inherent = {EFAULT},
         .inherent_why = "get_user_pages does not reach device memory",
         .kernel_first = true});
}

}  // namespace postern::hostile
