// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guarded_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "broker-core/guard_proof.h"
#include "broker-core/quantity.h"

namespace postern {
namespace {

/// Whether a mapping of the page at `start` can be made larger than it was asked to be: tried.
Result<bool> mappings_grow(int fd, uint64_t start) {
    void* page = ::mmap(nullptr, kPageSize, PROT_NONE, MAP_SHARED, fd, static_cast<off_t>(start));
    if (page == MAP_FAILED) {
        const int error = errno;
        return fail_errno(error, "cannot map the page at {:#x} of the file", start);
    }
    void* grown = ::mremap(page, kPageSize, 2 * kPageSize, MREMAP_MAYMOVE);
    if (grown == MAP_FAILED) {
        ::munmap(page, kPageSize);
        return false;
    }
    ::munmap(grown, 2 * kPageSize);
    return true;
}

/// The guard never hears of a mapping that grows, so there must be nothing for it to grow into.
Status check_growth(int fd, const GuardWindow& window) {
    POSTERN_ASSIGN(const bool grows, mappings_grow(fd, page_floor(window.offset)));
    if (!grows) return {};
    struct stat state {};
    if (::fstat(fd, &state) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at the file");
    }
    const int seals = ::fcntl(fd, F_GET_SEALS);
    const bool fixed = seals >= 0 && (seals & F_SEAL_GROW) != 0;
    const uint64_t end = page_ceil(window.offset + window.length);
    if (fixed && end >= static_cast<uint64_t>(state.st_size)) return {};
    return fail(
        "mremap(2) can make a mapping of the window at {:#x} longer, and no hook is asked; let the window "
        "reach "
        "the file's end ({:#x}) and seal that (F_SEAL_GROW), or use the method \"pread\"",
        window.offset, static_cast<uint64_t>(state.st_size));
}

}  // namespace

Status guard_file(Guard& guard, int fd, FilePolicy policy) {
    for (GuardWindow& window : policy.windows) {
        if (!window.mmap) continue;
        POSTERN_ASSIGN(window.vma_offset, measure_vma_offset(fd, window.offset));
        POSTERN_TRY(check_growth(fd, window));
    }
    POSTERN_TRY(prove_unguarded(fd));
    POSTERN_TRY(guard.register_file(fd, policy));
    return prove_guard(fd, policy);
}

}  // namespace postern
