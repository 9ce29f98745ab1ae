// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace postern::hostile {

/// A system call by the 32-bit door, int $0x80, with the numbers of i386. Arguments are cut to 32 bits, so
/// pointers must lie below 4 GiB. Returns the result or -1 with errno. Where the kernel has no such door
/// (CONFIG_IA32_EMULATION), the process gets SIGSEGV.
[[nodiscard]] long call32(long number, unsigned long a = 0, unsigned long b = 0, unsigned long c = 0,
                          unsigned long d = 0, unsigned long e = 0, unsigned long f = 0);

/// A zeroed page below 4 GiB; nullptr and errno.
[[nodiscard]] void* low_page();

}  // namespace postern::hostile
