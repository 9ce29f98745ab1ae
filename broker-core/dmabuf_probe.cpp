// SPDX-License-Identifier: Apache-2.0
#include "broker-core/dmabuf_probe.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string_view>

#include "broker-core/quantity.h"
#include "broker-core/scope_guard.h"

namespace postern {
namespace {

bool is_dmabuf(int fd) {
    char link[16] = {};
    const ssize_t length = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), link, sizeof link - 1);
    return length > 0 && std::string_view(link).starts_with("/dmabuf:");
}

/// A call that may be answered otherwise the next time. Not to be taken for a no.
Status check_answer(int error, const char* what) {
    if (error != ENOMEM && error != EAGAIN && error != EINTR) return {};
    return fail_errno(error, "cannot find out whether a dma-buf can be {}", what);
}

/// Mapped and unmapped again: whether it could be.
Result<bool> try_map(int dmabuf, uint64_t length, int protection) {
    void* at = ::mmap(nullptr, length, protection, MAP_SHARED, dmabuf, 0);
    const int error = errno;
    if (at != MAP_FAILED) {
        ::munmap(at, length);
        return true;
    }
    POSTERN_TRY(check_answer(error, "mapped"));
    return false;
}

}  // namespace

Result<DmabufFacts> probe_dmabuf(int dmabuf, uint64_t length, Access access) {
    // Of other files an end may move, and a mapping reach what is no window of anything.
    if (!is_dmabuf(dmabuf)) return fail("fd {} is no dma-buf", dmabuf);
    DmabufFacts facts;
    const off_t size = ::lseek(dmabuf, 0, SEEK_END);
    const int mode = ::fcntl(dmabuf, F_GETFL);
    if (size < 0 || mode < 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at the dma-buf");
    }
    facts.size = static_cast<uint64_t>(size);
    facts.can_be_written = (mode & O_ACCMODE) != O_RDONLY;

    const int protection = (access.read ? PROT_READ : 0) | (access.write ? PROT_WRITE : 0);
    POSTERN_ASSIGN(facts.maps, try_map(dmabuf, kPageSize, PROT_NONE));
    POSTERN_ASSIGN(facts.maps_window, try_map(dmabuf, length, protection));
    if (!facts.maps_window) return facts;
    POSTERN_ASSIGN(facts.maps_longer, try_map(dmabuf, length + kPageSize, protection));

    uint64_t mapped = length;
    void* at = ::mmap(nullptr, mapped, protection, MAP_SHARED, dmabuf, 0);
    if (at == MAP_FAILED) {
        const int error = errno;
        return fail_errno(error, "cannot map a dma-buf once more");
    }
    const ScopeGuard unmap([&] { ::munmap(at, mapped); });
    if (::mprotect(at, length, PROT_READ | PROT_WRITE) == 0) {
        facts.can_be_written = true;
    } else {
        const int error = errno;
        POSTERN_TRY(check_answer(error, "written"));
    }
    if (void* grown = ::mremap(at, length, length + kPageSize, MREMAP_MAYMOVE); grown != MAP_FAILED) {
        at = grown;
        mapped = length + kPageSize;
        facts.grows = true;
    } else {
        const int error = errno;
        POSTERN_TRY(check_answer(error, "mapped beyond its end"));
    }
    return facts;
}

}  // namespace postern
