// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "launcher/report.h"

namespace postern {

struct PoolCounts {
    std::size_t jobs = 0;
    std::size_t passed = 0;
    std::size_t failed = 0;
    std::size_t running = 0;
};

/// "12 of 20 done, 1 failed, 4 running, 0:07", of at most `columns` characters. Pure.
[[nodiscard]] std::string progress_line(const PoolCounts& counts, std::chrono::seconds elapsed,
                                        std::size_t columns);

/// Messages on stderr, and below them on a terminal one line that says how far the pool is.
class PoolProgress {
  public:
    /// `quiet`: neither a line nor messages.
    explicit PoolProgress(bool quiet);
    PoolProgress(const PoolProgress&) = delete;
    PoolProgress& operator=(const PoolProgress&) = delete;
    ~PoolProgress() { clear(); }

    [[nodiscard]] bool has_line() const { return has_line_; }
    void show(const PoolCounts& counts);
    /// The line is gone until show(): before anything else is written.
    void clear();

    template <typename... Args>
    void say(fmt::format_string<Args...> format, Args&&... args) {
        clear();
        if (!quiet_) tell(format, std::forward<Args>(args)...);
    }

  private:
    bool quiet_;
    bool has_line_;
    bool shown_ = false;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace postern
