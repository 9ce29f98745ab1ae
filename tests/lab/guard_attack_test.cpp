// SPDX-License-Identifier: Apache-2.0
// Ways around the guard that somebody who has read it would try.

#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/hostile/uring.h"
#include "tests/lab/guard_fixture.h"

namespace postern::test {
namespace {

/// An io_uring of two linked reads that are submitted and not waited for.
class LinkedReads {
  public:
    LinkedReads() {
        io_uring_params params{};
        ring_.reset(static_cast<int>(::syscall(SYS_io_uring_setup, 2, &params)));
        if (!ring_) return;
        const auto map_ring = [this](off_t which) {
            return ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, ring_.get(), which);
        };
        base_ = static_cast<char*>(map_ring(IORING_OFF_SQ_RING));
        entries_ = static_cast<io_uring_sqe*>(map_ring(IORING_OFF_SQES));
        params_ = params;
    }

    bool submit(int first, char* first_byte, int second, char* data, unsigned length, uint64_t position) {
        if (!ring_ || base_ == MAP_FAILED || entries_ == MAP_FAILED) return false;
        entries_[0] = entries_[1] = io_uring_sqe{};
        entries_[0].opcode = entries_[1].opcode = IORING_OP_READ;
        entries_[0].flags = IOSQE_IO_LINK;
        entries_[0].fd = first;
        entries_[0].addr = reinterpret_cast<uint64_t>(first_byte);
        entries_[0].len = 1;
        entries_[0].off = ~0ULL;
        entries_[1].fd = second;
        entries_[1].addr = reinterpret_cast<uint64_t>(data);
        entries_[1].len = length;
        entries_[1].off = position;
        entries_[1].user_data = 1;
        word(params_.sq_off.array)[0] = 0;
        word(params_.sq_off.array)[1] = 1;
        std::atomic_ref(*word(params_.sq_off.tail)).store(2);
        return ::syscall(SYS_io_uring_enter, ring_.get(), 2, 0, 0, nullptr, 0) == 2;
    }

    /// Completions there are, without a system call.
    unsigned completions() { return std::atomic_ref(*word(params_.cq_off.tail)).load(); }
    /// What the second read came to: bytes or -errno.
    int second_result() {
        const auto* all = reinterpret_cast<const io_uring_cqe*>(base_ + params_.cq_off.cqes);
        for (unsigned i = 0; i < completions(); i++) {
            if (all[i].user_data == 1) return all[i].res;
        }
        return -kWrong;
    }

  private:
    uint32_t* word(uint32_t offset) { return reinterpret_cast<uint32_t*>(base_ + offset); }

    UniqueFd ring_;
    io_uring_params params_{};
    char* base_ = nullptr;
    io_uring_sqe* entries_ = nullptr;
};

/// io_uring finishes a queued read in task work, at the end of any system call of the submitter, whose
/// registers are still those of that call. Here it is a pread64 of an allowed place of `decoy`, and nothing
/// else, while a read of another place of `file` waits behind one of a pipe that a second thread fills.
/// Returns 0 or the read's errno.
int read_masked_by_pread(int file, int decoy) {
    int pipe_fds[2];
    if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return 200;
    std::thread filler([&] {
        ::usleep(20000);
        (void)!::write(pipe_fds[1], "x", 1);
    });
    LinkedReads ring;
    char from_pipe = 0;
    char stolen[16] = {};
    char data[kPage];
    const bool submitted = ring.submit(pipe_fds[0], &from_pipe, file, stolen, sizeof stolen, 0x4000);
    while (submitted && ring.completions() < 2) (void)!::pread(decoy, data, sizeof data, 0xa000);
    filler.join();
    ::close(pipe_fds[0]);
    ::close(pipe_fds[1]);
    if (!submitted) return 201;
    const int result = ring.second_result();
    return result == static_cast<int>(sizeof stolen) ? 0 : -result;
}

TEST_F(GuardTest, IoUringReadMaskedByPread) {
    // /dev/zero: reads that cannot block are done in the task itself, those of memfds by a worker.
    const UniqueFd free(::open("/dev/zero", O_RDWR | O_CLOEXEC));
    const UniqueFd zero(::open("/dev/zero", O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(ok(guard_->register_file(zero.get(), policy())));
    char data[kPage];
    ASSERT_EQ(static_cast<ssize_t>(kPage), ::pread(zero.get(), data, kPage, 0xa000));
    ASSERT_EQ(EPERM, outcome([&] { return ::pread(zero.get(), data, kPage, 0x4000); }));
    const auto attempts = [](int file, int decoy) {
        return in_child([&] {
            // Whether the task work finds the task inside the system call is chance.
            for (int i = 0; i < 50; i++) {
                if (const int result = read_masked_by_pread(file, decoy); result != EPERM) return result;
            }
            return EPERM;
        });
    };
    EXPECT_EQ(0, attempts(free.get(), free.get()));  // the technique itself works
    EXPECT_EQ(EPERM, attempts(zero.get(), zero.get()));
    // With a decoy that is not guarded, so that its preads all succeed.
    EXPECT_EQ(EPERM, attempts(zero.get(), free.get()));
}

TEST_F(GuardTest, PreadOfATaskWithIoUring) {
    char data[16];
    const auto read_window = [&] {
        return outcome([&] { return ::pread(fd(), data, sizeof data, 0xa000); });
    };
    EXPECT_EQ(0, in_child(read_window));
    EXPECT_EQ(EPERM, in_child([&] {
                  hostile::Uring ring;
                  if (!ring.open(0)) return 200;
                  ring.next()->opcode = IORING_OP_NOP;
                  if (!ring.run()) return 201;
                  return read_window();
              }));
}

TEST_F(GuardTest, RemapFilePagesDressedAsMmap) {
    // Its page offset is where mmap has its flags: MAP_SHARED | MAP_FIXED | MAP_POPULATE, which is also what
    // the kernel tells the hook; and the register of mmap's offset, which it does not use, names an allowed
    // window.
    constexpr size_t kPageOffset = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
    ASSERT_EQ(0, ::ftruncate(owner(), (kPageOffset + 1) * kPage));
    const char mark = '!';
    ASSERT_EQ(1, ::pwrite(owner(), &mark, 1, kPageOffset * kPage));
    const auto remap = [&](int file) {
        void* at = ::mmap(nullptr, kPage, PROT_NONE, MAP_SHARED, file, 0x2000);
        EXPECT_NE(MAP_FAILED, at);
        const int result =
            outcome([&] { return ::syscall(SYS_remap_file_pages, at, kPage, 0, kPageOffset, 0, 0x2000); });
        ::munmap(at, kPage);
        return result;
    };
    EXPECT_EQ(0, remap(owner()));
    EXPECT_EQ(EPERM, remap(fd()));
}

/// A tracer changes the registers of a system call after the tracee made it: at its entry, where the kernel
/// then runs the changed call, and the guard must see that one.
int pread_changed_by_tracer(int file, long number, off_t position,
                            const std::function<void(user_regs_struct&)>& change) {
    const pid_t tracee = ::fork();
    if (tracee == 0) {
        ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        ::raise(SIGSTOP);
        char data[16];
        const long got = ::syscall(number, file, data, sizeof data, position);
        ::_exit(got == -1 ? errno : 0);
    }
    int status = 0;
    ::waitpid(tracee, &status, 0);
    ::ptrace(PTRACE_SETOPTIONS, tracee, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    bool changed = false;
    while (true) {
        ::ptrace(PTRACE_SYSCALL, tracee, nullptr, nullptr);
        if (::waitpid(tracee, &status, 0) != tracee) return kWrong;
        if (WIFEXITED(status)) return changed ? WEXITSTATUS(status) : kWrong;
        user_regs_struct regs{};
        ::ptrace(PTRACE_GETREGS, tracee, nullptr, &regs);
        if (changed || static_cast<long>(regs.orig_rax) != number || static_cast<int>(regs.rdi) != file)
            continue;
        change(regs);
        ::ptrace(PTRACE_SETREGS, tracee, nullptr, &regs);
        changed = true;
    }
}

TEST_F(GuardTest, RegistersChangedByATracer) {
    const auto to = [](off_t position) {
        return [position](user_regs_struct& regs) { regs.r10 = static_cast<unsigned long long>(position); };
    };
    EXPECT_EQ(0, pread_changed_by_tracer(fd(), SYS_pread64, 0, to(0xa000)));
    EXPECT_EQ(EPERM, pread_changed_by_tracer(fd(), SYS_pread64, 0xa000, to(0)));
    EXPECT_EQ(EPERM, pread_changed_by_tracer(fd(), SYS_pread64, 0xa000,
                                             [](user_regs_struct& regs) { regs.orig_rax = SYS_read; }));
}

TEST_F(GuardTest, DuplicatesAndChildren) {
    const auto allowed_and_refused = [](int file) {
        int value = 0;
        const int allowed = outcome([&] { return ::ioctl(file, FIONREAD, &value); });
        return allowed != 0 ? 200 : outcome([&] { return ::ioctl(file, FIOQSIZE, &value); });
    };
    const UniqueFd copy(::dup(fd()));
    EXPECT_EQ(EPERM, allowed_and_refused(copy.get()));
    const UniqueFd high(::fcntl(fd(), F_DUPFD_CLOEXEC, 500));
    EXPECT_EQ(EPERM, allowed_and_refused(high.get()));
    EXPECT_EQ(EPERM, in_child([&] { return allowed_and_refused(fd()); }));
    EXPECT_EQ(EPERM, in_child([&] { return allowed_and_refused(::dup2(fd(), 100)); }));
    EXPECT_EQ(EPERM, in_child([&] {
                  if (::unshare(CLONE_FILES | CLONE_NEWUSER | CLONE_NEWNS) != 0) return 201;
                  return allowed_and_refused(fd());
              }));
}

TEST_F(GuardTest, MappingsOfAChildStayUnderThePolicy) {
    void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd(), 0x5000);
    ASSERT_NE(MAP_FAILED, at);
    EXPECT_EQ(EPERM, in_child([&] {
                  ::close(fd());
                  return outcome([&] { return ::mprotect(at, kPage, PROT_READ | PROT_WRITE); });
              }));
    ::munmap(at, kPage);
}

TEST_F(GuardTest, MappingBehindAWindowByMergedMappings) {
    // Neighbouring mappings of one file are merged; the merged one is in no single window, so nothing more is
    // allowed.
    FilePolicy adjacent = policy();
    GuardWindow readable;
    readable.offset = readable.vma_offset = 0x4000;
    readable.length = kPage;
    readable.read = readable.mmap = true;
    adjacent.windows = {adjacent.windows[0], readable};
    make_files(adjacent);
    char* space =
        static_cast<char*>(::mmap(nullptr, 3 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_EQ(space, ::mmap(space, 2 * kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd(), 0x2000));
    ASSERT_EQ(space + 2 * kPage,
              ::mmap(space + 2 * kPage, kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd(), 0x4000));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(space, 3 * kPage, PROT_READ | PROT_WRITE); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(space + 2 * kPage, kPage, PROT_READ | PROT_WRITE); }));
    ::munmap(space, 3 * kPage);
}

TEST_F(GuardTest, HammeringThreadsNeverSlipThrough) {
    // Kernels that skip a program in which another task is preempted would let some through; see
    // guard_loader.cpp. It is worth trying with the kernel argument preempt=full as well.
    std::atomic<unsigned long> calls = 0;
    std::atomic<unsigned long> slipped = 0;
    std::atomic<bool> stop = false;
    const auto hammer = [&] {
        int value = 0;
        char data[8];
        while (!stop) {
            for (int i = 0; i < 100; i++) {
                if (outcome([&] { return ::ioctl(fd(), FIOQSIZE, &value); }) != EPERM) slipped++;
                if (outcome([&] { return ::pread(fd(), data, sizeof data, 0); }) != EPERM) slipped++;
                if (map(0, kPage, PROT_READ) != EPERM) slipped++;
                calls += 3;
            }
        }
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < 12; i++) threads.emplace_back(hammer);
    // Longer only where the machine did not run meanwhile.
    for (int seconds = 0; seconds < 4 || (calls <= 1000U && seconds < 90); ++seconds) ::sleep(1);
    stop = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_GT(calls, 1000U);
    EXPECT_EQ(0U, slipped);
    EXPECT_EQ(0U, skipped_runs());
}

}  // namespace
}  // namespace postern::test
