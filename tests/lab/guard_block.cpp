// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/guard_block.h"

#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

namespace postern::test {
namespace {

/// Linux 6.10; Debian 12's headers are older.
constexpr long kSysMseal = 462;

}  // namespace

bool has_mseal() {
    return ::syscall(kSysMseal, nullptr, 0UL, 0UL) == 0;
}

int seal_mapping(void* address, size_t length) {
    return ::syscall(kSysMseal, address, length, 0UL) == 0 ? 0 : errno;
}

LaidOut lay_out(const void* bytes, size_t size, const Recipe& recipe) {
    return lay_out_in(UniqueFd(::memfd_create("block", recipe.memfd_flags)), bytes, size, recipe);
}

LaidOut lay_out_in(UniqueFd file, const void* bytes, size_t size, const Recipe& recipe) {
    LaidOut made;
    made.file = std::move(file);
    made.length = recipe.pages * recipe.page_size;
    const int fd = made.file.get();
    if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(made.length)) != 0) return made;
    // Through a mapping: hugetlbfs has no write(2).
    void* writable = ::mmap(nullptr, made.length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (writable == MAP_FAILED) return made;
    const size_t fits = recipe.at + size <= made.length ? size : made.length - recipe.at;
    for (size_t i = 0; i < fits; ++i) {
        static_cast<char*>(writable)[recipe.at + i] = static_cast<const char*>(bytes)[i];
    }
    ::munmap(writable, made.length);
    if (recipe.seals != 0 && ::fcntl(fd, F_ADD_SEALS, recipe.seals) != 0) return made;
    const int flags = recipe.flags | (recipe.address != nullptr ? MAP_FIXED : 0);
    void* mapping = ::mmap(recipe.address, made.length, recipe.protection, flags, fd, 0);
    if (mapping == MAP_FAILED) return made;
    if (recipe.mseal) {
        if (const int error = seal_mapping(mapping, made.length); error != 0) {
            errno = error;
            return made;
        }
    }
    made.mapping = static_cast<char*>(mapping);
    made.block = made.mapping + recipe.at;
    return made;
}

std::optional<int> peek(const void* address) {
    int value = 0;
    const iovec to{&value, sizeof value};
    const iovec from{const_cast<void*>(address), sizeof value};
    if (::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) != static_cast<ssize_t>(sizeof value)) return {};
    return value;
}

int ruled_ioctl(int fd, unsigned long request, const void* block) {
    int error = EAGAIN;
    for (int tries = 0; tries < 1000 && error == EAGAIN; ++tries) {
        (void)*static_cast<const volatile char*>(block);
        error = ::ioctl(fd, request, block) == -1 ? errno : 0;
    }
    return error;
}

}  // namespace postern::test
