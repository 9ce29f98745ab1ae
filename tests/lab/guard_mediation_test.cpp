// SPDX-License-Identifier: Apache-2.0
// Row by row of the mediation table of the guard's design: what is refused, and next to it the same thing
// allowed, so that a refusal means something.

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/memfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "tests/hostile/compat.h"
#include "tests/hostile/uring.h"
#include "tests/lab/guard_fixture.h"

namespace postern::test {
namespace {

TEST_F(GuardTest, IoctlByCommand) {
    int value = 0;
    EXPECT_EQ(0, outcome([&] { return ::ioctl(fd(), FIONREAD, &value); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), FIOQSIZE, &value); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), FIOCLEX); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), FIONREAD | 0x80000000UL, &value); }));
    // Nobody else is touched.
    loff_t size = 0;
    EXPECT_EQ(0, outcome([&] { return ::ioctl(owner(), FIOQSIZE, &size); }));
    // The command is 32 bits wide in the kernel, too: what is above does not count.
    EXPECT_EQ(0, outcome([&] { return ::syscall(SYS_ioctl, fd(), 1ULL << 32 | FIONREAD, &value); }));
}

TEST_F(GuardTest, IoctlThroughThe32BitDoor) {
    void* low = hostile::low_page();
    ASSERT_NE(nullptr, low);
    const auto pointer = reinterpret_cast<unsigned long>(low);
    const auto ioctl32 = [&](int file) {
        return outcome(
            [&] { return hostile::call32(54, static_cast<unsigned long>(file), FIONREAD, pointer); });
    };
    EXPECT_EQ(0, ioctl32(owner()));  // the door is there
    EXPECT_EQ(EPERM, ioctl32(fd()));
}

TEST_F(GuardTest, X32NumbersAreNotTheirs) {
    int value = 0;
    const auto x32 = [&](int file) {
        return outcome([&] { return ::syscall(0x40000000 | 514, file, FIONREAD, &value); });
    };
    // Debian's kernels have x32 compiled in and switched off (syscall.x32=y).
    const int without_guard = x32(owner());
    EXPECT_TRUE(without_guard == ENOSYS || without_guard == 0);
    EXPECT_EQ(without_guard == ENOSYS ? ENOSYS : EPERM, x32(fd()));
}

TEST_F(GuardTest, MmapInsideOneWindow) {
    EXPECT_EQ(0, map(0x2000, 0x2000, kRw));
    EXPECT_EQ(0, map(0x3000, 0x1000, PROT_READ));
    EXPECT_EQ(0, map(0x2000, 1, PROT_WRITE));
    EXPECT_EQ(0, map(0x2000, 0x2000, PROT_NONE));
    EXPECT_EQ(0, map(0x2000, 0x2000, kRw, MAP_SHARED_VALIDATE | MAP_POPULATE | MAP_NORESERVE));
    EXPECT_EQ(EPERM, map(0x1000, 0x1000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x1000, 0x2000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x3000, 0x2000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x4000, 0x1000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x1000, 0x4000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x2000, 0x2001, PROT_READ));
    EXPECT_EQ(EPERM, map(0, 0x10000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x4000, 0x1000, PROT_NONE));
    EXPECT_EQ(EPERM, map(0x7000, 0x1000, PROT_READ));  // a pread window
    EXPECT_EQ(EPERM, map(0x2000, ~0xfffULL, PROT_READ));
    EXPECT_EQ(EPERM, map(1ULL << 62, 0x1000, PROT_READ));
    void* other = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, owner(), 0x4000);
    EXPECT_NE(MAP_FAILED, other);
    ::munmap(other, kPage);
}

TEST_F(GuardTest, MmapAccessAndFlags) {
    EXPECT_EQ(0, map(0x5000, 0x1000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x5000, 0x1000, PROT_WRITE));
    EXPECT_EQ(EPERM, map(0x5000, 0x1000, kRw));
    EXPECT_EQ(0, map(0x9000, 0x1000, PROT_WRITE));
    EXPECT_EQ(EPERM, map(0x9000, 0x1000, PROT_READ));
    EXPECT_EQ(EPERM, map(0x2000, 0x1000, PROT_READ | PROT_EXEC));
    EXPECT_EQ(EPERM, map(0x2000, 0x1000, PROT_READ, MAP_PRIVATE));
    EXPECT_EQ(EPERM, map(0x2000, 0x1000, PROT_READ, MAP_SHARED | MAP_GROWSDOWN));
    EXPECT_EQ(EPERM, map(0x2000, 0x1000, PROT_READ, MAP_SHARED | MAP_DENYWRITE));
}

TEST_F(GuardTest, MmapUnderReadImpliesExec) {
    EXPECT_EQ(EPERM, in_child([&] {
                  if (::personality(READ_IMPLIES_EXEC) == -1) return kWrong;
                  return map(0x2000, 0x1000, PROT_READ);
              }));
}

TEST_F(GuardTest, MmapThroughThe32BitDoor) {
    const auto mmap2 = [](int file) {
        return outcome([&] {
            // 192: mmap2, offset in pages
            return hostile::call32(192, 0, kPage, PROT_READ, MAP_SHARED, static_cast<unsigned long>(file), 2);
        });
    };
    EXPECT_EQ(0, mmap2(owner()));
    EXPECT_EQ(EPERM, mmap2(fd()));
}

TEST_F(GuardTest, RemapFilePages) {
    const auto remap = [](int file) {
        void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file, 0x2000);
        EXPECT_NE(MAP_FAILED, at);
        const int result = outcome([&] { return ::syscall(SYS_remap_file_pages, at, kPage, 0, 4, 0); });
        const char now = *static_cast<volatile char*>(at);
        ::munmap(at, kPage);
        return std::pair(result, now);
    };
    EXPECT_EQ(std::pair(0, 'E'), remap(owner()));
    EXPECT_EQ(std::pair(EPERM, 'C'), remap(fd()));
}

TEST_F(GuardTest, Mprotect) {
    void* read_only = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd(), 0x5000);
    ASSERT_NE(MAP_FAILED, read_only);
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(read_only, kPage, kRw); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(read_only, kPage, PROT_READ | PROT_EXEC); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::syscall(SYS_pkey_mprotect, read_only, kPage, kRw, -1); }));
    EXPECT_EQ(0, outcome([&] { return ::mprotect(read_only, kPage, PROT_NONE); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(read_only, kPage, PROT_WRITE); }));
    EXPECT_EQ(0, outcome([&] { return ::mprotect(read_only, kPage, PROT_READ); }));
    ::munmap(read_only, kPage);

    void* writable = ::mmap(nullptr, 2 * kPage, PROT_READ, MAP_SHARED, fd(), 0x2000);
    ASSERT_NE(MAP_FAILED, writable);
    char* second = static_cast<char*>(writable) + kPage;
    EXPECT_EQ(0, outcome([&] { return ::mprotect(second, kPage, kRw); }));  // splits it
    EXPECT_EQ(0, outcome([&] { return ::mprotect(writable, 2 * kPage, kRw); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(writable, 2 * kPage, kRw | PROT_EXEC); }));
    ::munmap(writable, 2 * kPage);
}

TEST_F(GuardTest, MprotectOverSeveralMappings) {
    // A window that may be written right before one that may not: the second must stop the call.
    char* space =
        static_cast<char*>(::mmap(nullptr, 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(MAP_FAILED, space);
    ASSERT_EQ(space, ::mmap(space, kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd(), 0x2000));
    ASSERT_EQ(space + kPage, ::mmap(space + kPage, kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd(), 0x5000));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(space, 2 * kPage, kRw); }));
    EXPECT_EQ(kWrong + SIGSEGV, in_child([&] {
                  *static_cast<volatile char*>(space + kPage) = 1;
                  return 0;
              }));
    ::munmap(space, 2 * kPage);
}

TEST_F(GuardTest, PreadAndPwriteInsideOneWindow) {
    char data[64] = {};
    const auto read_at = [&](off_t at, size_t count) {
        return outcome([&] { return ::pread(fd(), data, count, at); });
    };
    const auto write_at = [&](off_t at, size_t count) {
        return outcome([&] { return ::pwrite(fd(), data, count, at); });
    };
    EXPECT_EQ(0, read_at(0x7010, 0x20));
    EXPECT_EQ('H', data[0]);
    EXPECT_EQ(0, read_at(0x702f, 1));
    EXPECT_EQ(0, write_at(0x7010, 0x20));
    EXPECT_EQ(0, read_at(0xa000, 16));
    EXPECT_EQ(0, read_at(0xc010, 0x10));
    EXPECT_EQ(EPERM, write_at(0xc010, 0x10));
    EXPECT_EQ(EPERM, read_at(0x700f, 1));
    EXPECT_EQ(EPERM, read_at(0x700f, 2));
    EXPECT_EQ(EPERM, read_at(0x7010, 0x21));
    EXPECT_EQ(EPERM, read_at(0x7030, 1));
    EXPECT_EQ(EPERM, read_at(0x2000, 1));  // a mmap window
    EXPECT_EQ(EPERM, write_at(0x9000, 1));
    EXPECT_EQ(EPERM, read_at(0, 1));
    // Refused by the kernel before the guard is asked, or by the guard: either is a refusal.
    EXPECT_NE(0, read_at(-1, 1));
    EXPECT_NE(0, outcome([&] { return ::syscall(SYS_pread64, fd(), data, 1UL << 63, 0x7010); }));
}

/// Each way to read or write other than pread64 and pwrite64, at a place where those are allowed; on the
/// owner's file all work.
TEST_F(GuardTest, OtherReadsAndWrites) {
    char data[16] = {};
    iovec vector{data, sizeof data};
    const auto both = [&](const char* name, const std::function<long(int)>& call) {
        ASSERT_EQ(0xa000, ::lseek(fd(), 0xa000, SEEK_SET));
        ASSERT_EQ(0xa000, ::lseek(owner(), 0xa000, SEEK_SET));
        EXPECT_EQ(0, outcome([&] { return call(owner()); })) << name << " on the owner's file";
        EXPECT_EQ(EPERM, outcome([&] { return call(fd()); })) << name << " on the guarded file";
    };
    both("read", [&](int file) { return ::read(file, data, sizeof data); });
    both("write", [&](int file) { return ::write(file, data, sizeof data); });
    both("readv", [&](int file) { return ::readv(file, &vector, 1); });
    both("writev", [&](int file) { return ::writev(file, &vector, 1); });
    both("preadv", [&](int file) { return ::preadv(file, &vector, 1, 0xa000); });
    both("pwritev", [&](int file) { return ::pwritev(file, &vector, 1, 0xa000); });
    both("preadv2", [&](int file) { return ::preadv2(file, &vector, 1, 0xa000, 0); });
    both("pwritev2", [&](int file) { return ::pwritev2(file, &vector, 1, 0xa000, 0); });

    const UniqueFd sink(::memfd_create("sink", MFD_CLOEXEC));
    ASSERT_EQ(0, ::ftruncate(sink.get(), 0x10000));
    both("sendfile from it", [&](int file) { return ::sendfile(sink.get(), file, nullptr, 16); });
    both("sendfile to it", [&](int file) {
        ::lseek(sink.get(), 0, SEEK_SET);
        return ::sendfile(file, sink.get(), nullptr, 16);
    });
    int pipe_fds[2];
    ASSERT_EQ(0, ::pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK));
    const UniqueFd pipe_out(pipe_fds[0]);
    const UniqueFd pipe_in(pipe_fds[1]);
    both("splice from it", [&](int file) { return ::splice(file, nullptr, pipe_in.get(), nullptr, 16, 0); });
    both("splice to it", [&](int file) {
        EXPECT_EQ(16, ::write(pipe_in.get(), data, 16));
        return ::splice(pipe_out.get(), nullptr, file, nullptr, 16, 0);
    });
    both("copy_file_range from it", [&](int file) {
        off_t from = 0xa000;
        off_t to = 0;
        return ::copy_file_range(file, &from, sink.get(), &to, 16, 0);
    });
    both("copy_file_range to it", [&](int file) {
        off_t from = 0;
        off_t to = 0xa000;
        return ::copy_file_range(sink.get(), &from, file, &to, 16, 0);
    });
    both("fallocate", [&](int file) { return ::fallocate(file, 0, 0xa000, 16); });
    both("i386 pread64", [&](int file) {
        void* low = hostile::low_page();
        const auto pointer = reinterpret_cast<unsigned long>(low);
        // 180: pread64(fd, buffer, count, low and high half of the position)
        const long got = hostile::call32(180, static_cast<unsigned long>(file), pointer, 16, 0xa000, 0);
        const int error = errno;
        ::munmap(low, kPage);
        errno = error;
        return got;
    });
}

TEST_F(GuardTest, CloneRangeThroughAnotherFile) {
    // The ioctl goes to a file that is not guarded, with the guarded one inside.
    const UniqueFd sink(::memfd_create("sink", MFD_CLOEXEC));
    ASSERT_EQ(0, ::ftruncate(sink.get(), 0x10000));
    file_clone_range range{};
    range.src_offset = 0xa000;
    range.src_length = kPage;
    range.src_fd = owner();
    // tmpfs cannot clone; what matters is that the guard is asked before the file system.
    EXPECT_EQ(EOPNOTSUPP, outcome([&] { return ::ioctl(sink.get(), FICLONERANGE, &range); }));
    range.src_fd = fd();
    const int guarded = outcome([&] { return ::ioctl(sink.get(), FICLONERANGE, &range); });
    EXPECT_TRUE(guarded == EPERM || guarded == EOPNOTSUPP) << guarded;
}

TEST_F(GuardTest, Aio) {
    const auto read_by_aio = [](int file) {
        aio_context_t context = 0;
        if (::syscall(SYS_io_setup, 1, &context) != 0) return kWrong;
        char data[16];
        iocb request{};
        request.aio_fildes = static_cast<uint32_t>(file);
        request.aio_lio_opcode = IOCB_CMD_PREAD;
        request.aio_buf = reinterpret_cast<uint64_t>(data);
        request.aio_nbytes = sizeof data;
        request.aio_offset = 0xa000;
        iocb* list[] = {&request};
        int result = outcome([&] { return ::syscall(SYS_io_submit, context, 1, list); });
        if (result == 0) {
            io_event event{};
            result = ::syscall(SYS_io_getevents, context, 1, 1, &event, nullptr) == 1 && event.res < 0
                         ? static_cast<int>(-event.res)
                         : 0;
        }
        ::syscall(SYS_io_destroy, context);
        return result;
    };
    EXPECT_EQ(0, read_by_aio(owner()));
    EXPECT_EQ(EPERM, read_by_aio(fd()));
}

TEST_F(GuardTest, IoUring) {
    const auto transfer = [](int file, uint8_t opcode, uint32_t setup, uint8_t flags) {
        return in_child([&] {
            hostile::Uring ring;
            if (!ring.open(setup)) return 200;
            char data[16] = {};
            io_uring_sqe* entry = ring.next();
            entry->opcode = opcode;
            entry->flags = flags;
            entry->fd = file;
            entry->addr = reinterpret_cast<uint64_t>(data);
            entry->len = sizeof data;
            entry->off = 0xa000;
            if (!ring.run()) return 201;
            return ring.result(0) < 0 ? -ring.result(0) : 0;
        });
    };
    for (const uint8_t opcode : {IORING_OP_READ, IORING_OP_WRITE}) {
        for (const uint32_t setup : {0U, static_cast<uint32_t>(IORING_SETUP_SQPOLL)}) {
            for (const uint8_t flags : {uint8_t{0}, uint8_t{IOSQE_ASYNC}}) {
                EXPECT_EQ(0, transfer(owner(), opcode, setup, flags)) << int{opcode} << setup << int{flags};
                EXPECT_EQ(EPERM, transfer(fd(), opcode, setup, flags)) << int{opcode} << setup << int{flags};
            }
        }
    }
}

TEST_F(GuardTest, UnrelatedFilesGoOn) {
    // Anonymous mappings reach the mmap hook without a file.
    void* anonymous = ::mmap(nullptr, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(MAP_FAILED, anonymous);
    EXPECT_EQ(0, outcome([&] { return ::mprotect(anonymous, kPage, PROT_READ | PROT_EXEC); }));
    ::munmap(anonymous, kPage);
    // Files of the same kind and not registered, inside a sandbox too: the policy is not exclusive.
    const auto use = [] {
        const UniqueFd other(::memfd_create("other", MFD_CLOEXEC));
        char data[8] = {};
        return outcome([&] { return ::write(other.get(), data, sizeof data); });
    };
    EXPECT_EQ(0, use());
    EXPECT_EQ(0, in_child(use, [&](pid_t pid) { sandbox_->move_here(pid); }));
}

TEST_F(GuardTest, DeniedCallsAreCounted) {
    const std::string grant = policy().grant;
    const uint64_t before = guard_->denied(grant).value();
    for (int i = 0; i < 5; i++) EXPECT_EQ(EPERM, map(0, kPage, PROT_READ));
    EXPECT_EQ(0, map(0x2000, kPage, PROT_READ));
    EXPECT_EQ(before + 5, guard_->denied(grant).value());
    EXPECT_EQ(0U, guard_->denied("nobody").value());
}

TEST_F(GuardTest, Proof) {
    EXPECT_TRUE(ok(prove_guard(fd(), policy())));
    // A file that is not guarded, and one that was guarded before.
    const auto unguarded = prove_guard(owner(), policy());
    ASSERT_FALSE(unguarded);
    EXPECT_EQ(0U, unguarded.error().message.find("the guard cannot be proved: an unknown ioctl"))
        << unguarded.error().message;
    EXPECT_FALSE(prove_unguarded(fd()));
    EXPECT_TRUE(ok(prove_unguarded(owner())));
    // A policy that promises what the registered one refuses.
    FilePolicy wider = policy();
    wider.windows[0].length = 0x4000;
    EXPECT_FALSE(prove_guard(fd(), wider));
    wider.windows = {};
    wider.ioctls = {{.number = 0x1234}};
    EXPECT_TRUE(ok(prove_guard(fd(), wider)));
    wider.ioctls = {{.number = static_cast<uint32_t>(_IO(';', 107))}};  // VFIO_DEVICE_GET_INFO
    wider.exclusive = true;
    EXPECT_FALSE(prove_guard(fd(), wider));
}

TEST_F(GuardTest, MeasuredOffsets) {
    for (const uint64_t offset : {0x0ULL, 0x5000ULL, 0x5010ULL}) {
        const auto measured = measure_vma_offset(owner(), offset);
        ASSERT_TRUE(ok(measured));
        EXPECT_EQ(offset & ~0xfffULL, *measured);
    }
    EXPECT_FALSE(measure_vma_offset(fd(), 0));
}

}  // namespace
}  // namespace postern::test
