// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/instructions.h"

namespace postern::cost {

Status check_instructions_are_counted() {
    POSTERN_ASSIGN(const long counted, instructions_per_call(kManyCalls, [] {
                       asm volatile(".rept 1000\n nop\n .endr");
                       return true;
                   }));
    if (counted > 995 && counted < 1005) return {};
    return fail(
        "1000 instructions count as {}: this machine's time stamp counter does not count them; run "
        "this with tests/lab/run --icount",
        counted);
}

}  // namespace postern::cost
