// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

namespace postern {

/// What a seccomp filter says to system calls from `first` on, up to the next range.
struct CallRange {
    std::uint32_t first = 0;
    /// What seccomp(2) is told: SECCOMP_RET_* with its data. Of no meaning if there is a program.
    std::uint32_t verdict = 0;
    /// Index of the program that decides by the arguments; -1: none.
    int program = -1;

    [[nodiscard]] bool says_the_same(const CallRange& other) const {
        return program == other.program && (program >= 0 || verdict == other.verdict);
    }
};

/// A program for seccomp(2) that finds the range of a call of x86-64 by halving, and that kills the process
/// for a call of another architecture. A run of calls with one verdict costs one comparison however many
/// they are, where a tree over single numbers has as many comparisons as calls: what the kernel converts,
/// compiles and tries for each number when a filter is installed is a third of libseccomp's.
///
/// `ranges` ascend and begin at 0. `programs` are complete, and end in a RET on each way. Pure.
std::vector<sock_filter> make_call_tree(const std::vector<CallRange>& ranges,
                                        const std::vector<std::vector<sock_filter>>& programs);

}  // namespace postern
