// SPDX-License-Identifier: Apache-2.0
// Files that nobody registered, in a sandbox where they may not be used.
#pragma once

#include "tests/lab/guard_fixture.h"

namespace postern::test {

/// Six ways to use `file`, of which one is to receive what was sent to `socket`: how many are refused with
/// EPERM, or 100 if some fail otherwise.
[[nodiscard]] int stray_refusals(int file, int socket);

/// A mapping of `file` that was made outside, `flags` for mmap(2), gets no more rights in the sandbox, and
/// does outside.
void expect_stray_mapping_stays(int file, int flags, const TestCgroup& sandbox);

}  // namespace postern::test
