// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/guard_strays.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/passing.h"

namespace postern::test {

int stray_refusals(int file, int socket) {
    int refused = 0;
    bool otherwise = false;
    const auto count = [&](int result) {
        refused += result == EPERM ? 1 : 0;
        otherwise = otherwise || (result != 0 && result != EPERM && result != ENOTTY);
    };
    char data[8] = {};
    int value = 0;
    void* at = MAP_FAILED;
    count(outcome([&] { return ::read(file, data, sizeof data); }));
    count(outcome([&] { return ::write(file, data, sizeof data); }));
    count(outcome([&] { return ::pread(file, data, sizeof data, 0); }));
    count(outcome([&] { return ::ioctl(file, 0x5401, &value); }));
    count(outcome([&] {
        at = ::mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, file, 0);
        return at == MAP_FAILED ? -1 : 0;
    }));
    count(receive_fd(socket) ? 0 : EPERM);
    return otherwise ? 100 : refused;
}

void expect_stray_mapping_stays(int file, int flags, const TestCgroup& sandbox) {
    void* at = ::mmap(nullptr, kPage, PROT_READ, flags, file, 0);
    ASSERT_NE(MAP_FAILED, at);
    const auto protect = [&] {
        return outcome([&] { return ::mprotect(at, kPage, PROT_READ | PROT_WRITE); });
    };
    EXPECT_EQ(EPERM, in_child(protect, [&](pid_t pid) { sandbox.move_here(pid); }));
    EXPECT_EQ(0, in_child(protect));
    ::munmap(at, kPage);
}

}  // namespace postern::test
