// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/uring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <utility>

namespace postern::hostile {
namespace {

constexpr uint32_t kEntries = 8;

uint32_t* word(char* ring, uint32_t offset) {
    return reinterpret_cast<uint32_t*>(ring + offset);
}

}  // namespace

bool Uring::open(uint32_t flags) {
    io_uring_params params{};
    params.flags = flags;
    params.sq_thread_idle = 1000;
    fd_.reset(static_cast<int>(syscall(SYS_io_uring_setup, kEntries, &params)));
    if (!fd_) return false;
    flags_ = flags;
    // IORING_FEAT_SINGLE_MMAP, Linux 5.4: one mapping holds both rings.
    const size_t size = std::max(params.sq_off.array + params.sq_entries * sizeof(uint32_t),
                                 params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe));
    void* ring =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_.get(), IORING_OFF_SQ_RING);
    void* entries = mmap(nullptr, params.sq_entries * sizeof(io_uring_sqe), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_POPULATE, fd_.get(), IORING_OFF_SQES);
    if (ring == MAP_FAILED || entries == MAP_FAILED) return false;
    char* base = static_cast<char*>(ring);
    entries_ = static_cast<io_uring_sqe*>(entries);
    sq_tail_ = word(base, params.sq_off.tail);
    sq_array_ = word(base, params.sq_off.array);
    sq_flags_ = word(base, params.sq_off.flags);
    cq_head_ = word(base, params.cq_off.head);
    cq_tail_ = word(base, params.cq_off.tail);
    cq_mask_ = *word(base, params.cq_off.ring_mask);
    completions_ = reinterpret_cast<io_uring_cqe*>(base + params.cq_off.cqes);
    return true;
}

io_uring_sqe* Uring::next() {
    const uint32_t tail = *sq_tail_ + pending_;
    const uint32_t index = tail % kEntries;
    sq_array_[index] = index;
    ++pending_;
    entries_[index] = io_uring_sqe{};
    return &entries_[index];
}

bool Uring::run() {
    const uint32_t count = publish();
    uint32_t enter = IORING_ENTER_GETEVENTS;
    uint32_t submitted = count;
    if ((flags_ & IORING_SETUP_SQPOLL) != 0) {
        // The kernel's thread takes the entries by itself; it may have to be woken.
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if ((std::atomic_ref(*sq_flags_).load() & IORING_SQ_NEED_WAKEUP) != 0)
            enter |= IORING_ENTER_SQ_WAKEUP;
        submitted = 0;
    }
    if (syscall(SYS_io_uring_enter, fd_.get(), submitted, count, enter, nullptr, 0) < 0) return false;
    reap();
    return true;
}

bool Uring::submit() {
    return syscall(SYS_io_uring_enter, fd_.get(), publish(), 0, 0, nullptr, 0) >= 0;
}

unsigned Uring::reap() {
    uint32_t head = *cq_head_;
    while (head != std::atomic_ref(*cq_tail_).load(std::memory_order_acquire)) {
        const io_uring_cqe& completion = completions_[head++ & cq_mask_];
        results_[completion.user_data % kEntries] = completion.res;
        ++reaped_;
    }
    std::atomic_ref(*cq_head_).store(head, std::memory_order_release);
    return reaped_;
}

uint32_t Uring::publish() {
    const uint32_t count = std::exchange(pending_, 0);
    std::atomic_ref(*sq_tail_).fetch_add(count, std::memory_order_release);
    return count;
}

int Uring::result(uint64_t user_data) const {
    return results_[user_data % kEntries];
}

}  // namespace postern::hostile
