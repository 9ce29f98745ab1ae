// SPDX-License-Identifier: Apache-2.0
#include "launcher/pool_progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace postern {
namespace {

bool is_able_terminal() {
    const char* kind = std::getenv("TERM");
    return ::isatty(STDERR_FILENO) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

std::size_t terminal_columns() {
    winsize size = {};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

}  // namespace

std::string progress_line(const PoolCounts& counts, std::chrono::seconds elapsed, std::size_t columns) {
    const auto seconds = elapsed.count();
    const std::string failed = counts.failed == 0 ? "" : fmt::format(", {} failed", counts.failed);
    return fmt::format("{} of {} done{}, {} running, {}:{:02}", counts.passed + counts.failed, counts.jobs,
                       failed, counts.running, seconds / 60, seconds % 60)
        .substr(0, columns);
}

PoolProgress::PoolProgress(bool quiet) : quiet_(quiet), has_line_(!quiet && is_able_terminal()) {}

void PoolProgress::show(const PoolCounts& counts) {
    if (!has_line_) return;
    const auto elapsed =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin_);
    // The cursor goes back: what others say on stderr takes the line's place, not what follows it.
    tell("\r{}\x1b[K\r", progress_line(counts, elapsed, terminal_columns() - 1));
    shown_ = true;
}

void PoolProgress::clear() {
    if (shown_) tell("\r\x1b[K");
    shown_ = false;
}

}  // namespace postern
