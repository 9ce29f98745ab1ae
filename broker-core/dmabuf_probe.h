// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "broker-core/profile.h"
#include "broker-core/result.h"

namespace postern {

/// What one who has a dma-buf, and nothing else, can do with it on this kernel: tried, never assumed.
struct DmabufFacts {
    uint64_t size = 0;            ///< bytes; lseek(2) to its end
    bool maps = false;            ///< a page of it, in any way
    bool maps_window = false;     ///< all of the window, with the window's access
    bool maps_longer = false;     ///< a page more than the window
    bool grows = false;           ///< by mremap(2), without anybody being asked
    bool can_be_written = false;  ///< by its fd's mode, or by mprotect(2) of a mapping made to be read
};

/// Asks the kernel by mapping and unmapping; no byte of the memory is read or written, and no page of it is
/// faulted in. `dmabuf` is borrowed, `length` are the window's bytes, rounded to whole pages. (Dma-bufs of
/// BARs cannot be mapped up to Linux 7.3: EINVAL.) Error: it is no dma-buf, or the kernel does not tell now,
/// for want of memory say, what a client could do later.
[[nodiscard]] Result<DmabufFacts> probe_dmabuf(int dmabuf, uint64_t length, Access access);

}  // namespace postern
