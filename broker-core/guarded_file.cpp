// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guarded_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <utility>

#include "broker-core/cgroup_child.h"
#include "broker-core/guard_owner.h"
#include "broker-core/guard_proof.h"
#include "broker-core/quantity.h"

namespace postern {
namespace {

/// A page of the file, mapped as a client would, without any access.
class Page {
  public:
    [[nodiscard]] static Result<Page> map(int fd, uint64_t start) {
        void* at = ::mmap(nullptr, kPageSize, PROT_NONE, MAP_SHARED, fd, static_cast<off_t>(start));
        if (at != MAP_FAILED) return Page(at);
        const int error = errno;
        return fail_errno(error, "cannot map the page at {:#x} of the file", start);
    }
    Page(Page&& other) noexcept : at_(std::exchange(other.at_, nullptr)), length_(other.length_) {}
    Page& operator=(Page&&) = delete;
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
    ~Page() {
        if (at_ != nullptr) ::munmap(at_, length_);
    }

    [[nodiscard]] const void* at() const { return at_; }
    /// Whether it can be made longer than it was asked to be: tried.
    [[nodiscard]] bool grows() {
        void* grown = ::mremap(at_, length_, 2 * kPageSize, MREMAP_MAYMOVE);
        if (grown == MAP_FAILED) return false;
        at_ = grown;
        length_ = 2 * kPageSize;
        return true;
    }

  private:
    explicit Page(void* at) : at_(at) {}
    void* at_;
    size_t length_ = kPageSize;
};

/// The guard never hears of a mapping that grows, so there must be nothing for it to grow into.
Status check_end(int fd, const GuardWindow& window) {
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

/// That what the guard will be asked about a mapping of this window is all that can be done with it.
Status check_mapping(Guard& guard, int fd, const GuardWindow& window) {
    POSTERN_ASSIGN(Page page, Page::map(fd, page_floor(window.offset)));
    POSTERN_ASSIGN(const bool own, guard.maps_file(fd, page.at()));
    if (!own) {
        return fail(
            "the driver puts another file into its mappings, so that mprotect(2) of the window at {:#x} "
            "would "
            "not be the guard's to decide; use the method \"pread\", or leave the window out",
            window.offset);
    }
    return page.grows() ? check_end(fd, window) : Status();
}

}  // namespace

Status guard_file(Guard& guard, int fd, FilePolicy policy) {
    for (GuardWindow& window : policy.windows) {
        if (!window.mmap) continue;
        POSTERN_ASSIGN(window.vma_offset, measure_vma_offset(fd, window.offset));
        POSTERN_TRY(check_mapping(guard, fd, window));
    }
    POSTERN_TRY(prove_unguarded(fd));
    if (!policy.shared) {
        POSTERN_TRY(guard.register_file(fd, policy));
        return prove_guard(fd, policy);
    }
    POSTERN_TRY(guard.share_file(fd, policy));
    POSTERN_ASSIGN(const ChildMark mark, ChildMark::proof());
    const auto marked = [&](const auto& prove) -> Status {
        if (mark.apply()) return prove(fd, policy);
        const int error = errno;
        return fail_errno(error, "the guard: cannot mark a process that proves it");
    };
    // Where it holds: this process owns the file, and is under no policy.
    if (auto proved = in_cgroup(policy.sandbox_cgroup_id, [&] { return marked(prove_guard); }); !proved)
        return propagate(std::move(proved), "in the client's sandbox");
    // And where nothing is shared: in a child, which is not the owner.
    if (auto proved = in_child([&] { return marked(prove_closed); }); !proved)
        return propagate(std::move(proved), "outside of every sandbox");
    return prove_unguarded(fd);
}

}  // namespace postern
