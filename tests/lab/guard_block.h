// SPDX-License-Identifier: Apache-2.0
// Argument blocks in memory of all sorts: as the guard wants them, and with one thing missing.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "broker-core/unique_fd.h"

namespace postern::test {

/// Whether this kernel has mseal(2), without which no rule on arguments can be enforced.
bool has_mseal();
/// mseal(2): 0 or errno.
int seal_mapping(void* address, size_t length);

/// How the memory of a block is made; the default is as the guard wants it.
struct Recipe {
    unsigned memfd_flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int seals = F_SEAL_WRITE | F_SEAL_SHRINK;  ///< 0: none
    int protection = PROT_READ;
    int flags = MAP_SHARED;
    bool mseal = true;
    size_t at = 0;  ///< where in the mapping the block begins
    size_t pages = 1;
    char* address = nullptr;  ///< where the mapping has to be; nullptr: anywhere
    size_t page_size = 4096;
};

/// A block in a file behind a mapping. Not undone: a sealed mapping cannot be.
struct LaidOut {
    UniqueFd file;
    char* mapping = nullptr;
    size_t length = 0;  ///< of the mapping
    void* block = nullptr;
};

/// A block of these bytes; `block` is nullptr, with errno, where that failed.
LaidOut lay_out(const void* bytes, size_t size, const Recipe& recipe = {});
/// The same with a file of the caller's.
LaidOut lay_out_in(UniqueFd file, const void* bytes, size_t size, const Recipe& recipe);

/// The number at that address, as a system call would see it; nothing where nothing is mapped.
std::optional<int> peek(const void* address);

/// ioctl(2) on memory that is brought in first, again while the guard could not look at it: 0 or errno.
int ruled_ioctl(int fd, unsigned long request, const void* block);

}  // namespace postern::test
