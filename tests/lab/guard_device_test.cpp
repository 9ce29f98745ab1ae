// SPDX-License-Identifier: Apache-2.0
// The guard on a real VFIO device: QEMU's edu.

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/lab/guard_edu.h"

namespace postern::test {
namespace {

constexpr uint32_t kEduId = 0x010000ed;

/// Windows in BAR 0, which is 1 MiB: pages 0 (rw) and 2 (r), both by mmap; the first 64 bytes of the
/// configuration space (r) by pread.
class GuardDeviceTest : public EduTest {
  protected:
    void SetUp() override {
        EduTest::SetUp();
        if (HasFatalFailure()) return;
        ASSERT_TRUE(ok(guard_->register_file(guarded_.get(), device_policy())));
        ASSERT_TRUE(ok(guard_->learn(group_.get())));
        ASSERT_TRUE(ok(guard_->learn(container_.get())));
    }

    [[nodiscard]] FilePolicy device_policy() const {
        FilePolicy policy = GuardTest::policy();
        policy.exclusive = true;
        policy.ioctls = {{.number = static_cast<uint32_t>(VFIO_DEVICE_GET_INFO)}};
        GuardWindow registers;
        registers.length = kPage;
        registers.read = registers.write = registers.mmap = true;
        GuardWindow readable;
        readable.offset = 2 * kPage;
        readable.length = kPage;
        readable.read = readable.mmap = true;
        GuardWindow config;
        config.offset = kConfig;
        config.length = 64;
        config.read = config.pread = true;
        for (GuardWindow* window : {&registers, &readable}) {
            const auto measured = measure_vma_offset(owner_.get(), window->offset);
            EXPECT_TRUE(ok(measured));
            window->vma_offset = measured.value_or(0);
        }
        policy.windows = {registers, readable, config};
        return policy;
    }
};

TEST_F(GuardDeviceTest, Proof) {
    EXPECT_TRUE(ok(prove_guard(fd(), device_policy())));
}

TEST_F(GuardDeviceTest, EveryOtherDeviceIoctl) {
    vfio_device_info info{};
    info.argsz = sizeof info;
    EXPECT_EQ(0, outcome([&] { return ::ioctl(fd(), VFIO_DEVICE_GET_INFO, &info); }));
    EXPECT_EQ(0, outcome([&] { return ::ioctl(owner(), VFIO_DEVICE_GET_INFO, &info); }));
    vfio_irq_info irq{};
    irq.argsz = sizeof irq;
    EXPECT_EQ(0, outcome([&] { return ::ioctl(owner(), VFIO_DEVICE_GET_IRQ_INFO, &irq); }));
    for (int number = 0; number < 256; number++) {
        const auto command = static_cast<unsigned long>(_IO(VFIO_TYPE, number));
        if (command == VFIO_DEVICE_GET_INFO) continue;
        EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), command, &info); })) << number;
    }
}

TEST_F(GuardDeviceTest, Registers) {
    void* at = ::mmap(nullptr, kPage, kRw, MAP_SHARED, fd(), 0);
    ASSERT_NE(MAP_FAILED, at);
    EXPECT_EQ(kEduId, *static_cast<volatile uint32_t*>(at));
    // Register 4 answers with the inverse: writes arrive, with no system call between.
    static_cast<volatile uint32_t*>(at)[1] = 0x12345678;
    EXPECT_EQ(~0x12345678U, static_cast<volatile uint32_t*>(at)[1]);
    ::munmap(at, kPage);
}

TEST_F(GuardDeviceTest, MmapOfOtherPages) {
    EXPECT_EQ(0, map(0, kPage, kRw));
    EXPECT_EQ(0, map(2 * kPage, kPage, PROT_READ));
    EXPECT_EQ(EPERM, map(2 * kPage, kPage, kRw));
    EXPECT_EQ(EPERM, map(kPage, kPage, PROT_READ));
    EXPECT_EQ(EPERM, map(0, 2 * kPage, PROT_READ));
    EXPECT_EQ(EPERM, map(0, 3 * kPage, PROT_READ));
    EXPECT_EQ(EPERM, map(kConfig, kPage, PROT_READ));
    void* other = ::mmap(nullptr, kPage, kRw, MAP_SHARED, owner(), kPage);
    EXPECT_NE(MAP_FAILED, other);
    ::munmap(other, kPage);
}

TEST_F(GuardDeviceTest, MprotectWhereverTheMappingSaysItIs) {
    void* read_only = ::mmap(nullptr, kPage, PROT_NONE, MAP_SHARED, fd(), 2 * kPage);
    ASSERT_NE(MAP_FAILED, read_only);
    EXPECT_EQ(0, outcome([&] { return ::mprotect(read_only, kPage, PROT_READ); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(read_only, kPage, kRw); }));
    // Later kernels refuse it themselves, with EACCES, before they ask.
    EXPECT_NE(0, outcome([&] { return ::mprotect(read_only, kPage, PROT_READ | PROT_EXEC); }));
    ::munmap(read_only, kPage);
    void* writable = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd(), 0);
    ASSERT_NE(MAP_FAILED, writable);
    EXPECT_EQ(0, outcome([&] { return ::mprotect(writable, kPage, kRw); }));
    ::munmap(writable, kPage);
}

TEST_F(GuardDeviceTest, RemapAndMremap) {
    void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd(), 2 * kPage);
    ASSERT_NE(MAP_FAILED, at);
    EXPECT_EQ(EPERM, outcome([&] { return ::syscall(SYS_remap_file_pages, at, kPage, 0, 0, 0); }));
    const auto remapped = [&](size_t old_size, size_t new_size, int flags) {
        void* now = ::mremap(at, old_size, new_size, flags);
        if (now == MAP_FAILED) return errno;
        at = now;
        return 0;
    };
    // The kernel itself refuses: VFIO's mappings are VM_DONTEXPAND.
    EXPECT_EQ(EFAULT, remapped(kPage, 2 * kPage, MREMAP_MAYMOVE));
    EXPECT_EQ(EFAULT, remapped(0, kPage, MREMAP_MAYMOVE));
    EXPECT_EQ(EINVAL, remapped(kPage, kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
    // Moving it is harmless, and it stays under the policy.
    void* place = ::mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void* moved = ::mremap(at, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    ASSERT_EQ(place, moved);
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(moved, kPage, kRw); }));
    ::munmap(moved, kPage);
}

TEST_F(GuardDeviceTest, ConfigurationSpace) {
    char data[128] = {};
    const auto read_at = [&](int file, uint64_t at, size_t count) {
        return outcome([&] { return ::pread(file, data, count, static_cast<off_t>(at)); });
    };
    EXPECT_EQ(0, read_at(fd(), kConfig, 64));
    EXPECT_EQ(0x34, data[0]);
    EXPECT_EQ(0x12, data[1]);
    EXPECT_EQ(EPERM, read_at(fd(), kConfig, 65));
    EXPECT_EQ(EPERM, read_at(fd(), kConfig + 64, 4));
    EXPECT_EQ(0, read_at(owner(), kConfig + 64, 4));
    EXPECT_EQ(EPERM, read_at(fd(), 0, 4));  // BAR 0, whose window is by mmap
    EXPECT_EQ(0, read_at(owner(), 0, 4));
    EXPECT_EQ(EPERM, outcome([&] { return ::pwrite(fd(), data, 2, static_cast<off_t>(kConfig + 4)); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::read(fd(), data, 4); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::write(fd(), data, 4); }));
}

TEST_F(GuardDeviceTest, NoOtherFileOfTheDeviceInASandbox) {
    vfio_device_info info{};
    info.argsz = sizeof info;
    const auto try_all = [&] {
        int refused = 0;
        refused += outcome([&] { return ::ioctl(owner(), VFIO_DEVICE_GET_INFO, &info); }) == EPERM;
        refused +=
            outcome([&] { return ::ioctl(group_.get(), VFIO_GROUP_GET_DEVICE_FD, bdf_.c_str()); }) == EPERM;
        refused += outcome([&] { return ::ioctl(container_.get(), VFIO_GET_API_VERSION); }) == EPERM;
        const UniqueFd fresh(::open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC));
        refused += outcome([&] { return ::ioctl(fresh.get(), VFIO_GET_API_VERSION); }) == EPERM;
        refused +=
            ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, owner(), kPage) == MAP_FAILED && errno == EPERM;
        char data[4];
        refused += outcome([&] { return ::pread(owner(), data, 4, kConfig); }) == EPERM;
        // The registered one works there.
        if (outcome([&] { return ::ioctl(fd(), VFIO_DEVICE_GET_INFO, &info); }) != 0) return 100;
        return refused;
    };
    EXPECT_EQ(0, in_child(try_all));
    EXPECT_EQ(6, in_child(try_all, [&](pid_t pid) { sandbox_->move_here(pid); }));
}

TEST_F(GuardDeviceTest, ReopeningThroughProc) {
    EXPECT_FALSE(reopened(fd(), O_RDWR));
    EXPECT_EQ(ENXIO, errno);
}

TEST_F(GuardDeviceTest, MappingOutlivesTheFd) {
    void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd(), 2 * kPage);
    ASSERT_NE(MAP_FAILED, at);
    guarded_.reset();
    EXPECT_EQ(1U, registered_files());
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(at, kPage, kRw); }));
    ::munmap(at, kPage);
    EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
}

}  // namespace
}  // namespace postern::test
