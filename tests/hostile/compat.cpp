// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/compat.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>

#include "tests/hostile/target.h"

namespace postern::hostile {

long call32(long number, unsigned long a, unsigned long b, unsigned long c, unsigned long d, unsigned long e,
            unsigned long f) {
    register unsigned long sixth asm("r8") = f;
    long result = number;
    // rbp carries the sixth argument but may be the frame pointer: it is exchanged around the call. The
    // kernel clears r8 to r11 on this path before Linux 4.17, so r8 cannot bring rbp back; the stack does,
    // below the red zone.
    asm volatile(
        "lea -128(%%rsp), %%rsp\n\t"
        "push %%rbp\n\t"
        "mov %%r8, %%rbp\n\t"
        "int $0x80\n\t"
        "pop %%rbp\n\t"
        "lea 128(%%rsp), %%rsp"
        : "+a"(result), "+r"(sixth)
        : "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
        : "memory", "r9", "r10", "r11", "cc");
    const auto value = static_cast<int32_t>(result);
    if (value < 0 && value >= -4095) {
        errno = -value;
        return -1;
    }
    return static_cast<long>(static_cast<uint32_t>(value));
}

void* low_page() {
    void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    return page == MAP_FAILED ? nullptr : page;
}

}  // namespace postern::hostile
