// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/io_uring.h>

#include <cstdint>

#include "broker-core/unique_fd.h"

namespace postern::hostile {

/// A small io_uring(7) by raw system calls. Lives in a child that ends soon: the rings are never unmapped.
class Uring {
  public:
    /// io_uring_setup(2) with `flags` (IORING_SETUP_…), 8 entries. False with errno.
    [[nodiscard]] bool open(uint32_t flags);

    /// A cleared submission entry; at most 8 between two calls of run().
    [[nodiscard]] io_uring_sqe* next();

    /// Submits all, waits for as many completions. False with errno: of io_uring_enter(2).
    [[nodiscard]] bool run();

    /// Submits all and waits for none. False with errno.
    [[nodiscard]] bool submit();

    /// Takes in the completions that are there; how many there were since open().
    unsigned reap();

    /// What the entry with this user_data came to: bytes, or a negative errno; after run().
    [[nodiscard]] int result(uint64_t user_data) const;

    [[nodiscard]] int fd() const { return fd_.get(); }

  private:
    /// Makes the pending entries visible to the kernel; how many.
    uint32_t publish();

    UniqueFd fd_;
    uint32_t flags_ = 0;
    io_uring_sqe* entries_ = nullptr;
    uint32_t *sq_tail_ = nullptr, *sq_array_ = nullptr, *sq_flags_ = nullptr;
    uint32_t *cq_head_ = nullptr, *cq_tail_ = nullptr;
    uint32_t cq_mask_ = 0;
    io_uring_cqe* completions_ = nullptr;
    uint32_t pending_ = 0;
    int results_[8] = {};
    unsigned reaped_ = 0;
};

}  // namespace postern::hostile
