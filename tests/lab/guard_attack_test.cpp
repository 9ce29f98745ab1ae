// SPDX-License-Identifier: Apache-2.0
// Ways around the guard that somebody who has read it would try.

#include <fcntl.h>
#include <linux/memfd.h>
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

/// io_uring finishes a queued read in task work, at the end of any system call of the submitter, whose registers
/// are still those of that call. Here it is a pread64 of an allowed place, again and again, while a linked read of
/// another place waits for a pipe that a second thread fills. Returns the read's result: bytes or -errno.
int read_masked_by_pread(int file, int decoy) {
    hostile::Uring ring;
    if (!ring.open(0)) return kWrong;
    int pipe_fds[2];
    if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return kWrong;
    char from_pipe = 0;
    char stolen[16] = {};

    io_uring_sqe* first = ring.next();
    first->opcode = IORING_OP_READ;
    first->flags = IOSQE_IO_LINK;
    first->fd = pipe_fds[0];
    first->addr = reinterpret_cast<uint64_t>(&from_pipe);
    first->len = 1;
    first->off = ~0ULL;
    first->user_data = 1;
    io_uring_sqe* second = ring.next();
    second->opcode = IORING_OP_READ;
    second->fd = file;
    second->addr = reinterpret_cast<uint64_t>(stolen);
    second->len = sizeof stolen;
    second->off = 0x4000;
    second->user_data = 2;
    // Submits without waiting: run() would wait for both.
    if (!ring.submit()) return kWrong;

    std::thread filler([&] {
        ::usleep(100000);
        (void)!::write(pipe_fds[1], "x", 1);
    });
    // No other system call until the task work must have run.
    char data[16];
    for (int i = 0; i < 400000; i++) (void)!::pread(decoy, data, sizeof data, 0xa000);
    filler.join();
    if (!ring.wait(2)) return kWrong;
    ::close(pipe_fds[0]);
    ::close(pipe_fds[1]);
    return ring.result(2);
}

TEST_F(GuardTest, IoUringReadMaskedByPread) {
    // The technique itself works: the linked read is carried out.
    EXPECT_EQ(16, in_child([&] { return read_masked_by_pread(owner(), owner()); }));
    EXPECT_EQ(EPERM, in_child([&] { return -read_masked_by_pread(fd(), fd()); }));
    // With a decoy that is not guarded, so that its preads all succeed.
    EXPECT_EQ(EPERM, in_child([&] { return -read_masked_by_pread(fd(), owner()); }));
}

TEST_F(GuardTest, PreadOfATaskWithIoUring) {
    char data[16];
    const auto read_window = [&] { return outcome([&] { return ::pread(fd(), data, sizeof data, 0xa000); }); };
    EXPECT_EQ(0, in_child(read_window));
    EXPECT_EQ(EPERM, in_child([&] {
                  hostile::Uring ring;
                  if (!ring.open(0)) return 200;
                  ring.next()->opcode = IORING_OP_NOP;
                  if (!ring.run()) return 201;
                  return read_window();
              }));
}

/// A tracer changes the registers of a system call after the tracee made it: at its entry, where the kernel then runs
/// the changed call, and the guard must see that one.
int pread_changed_by_tracer(int file, long number, off_t position, const std::function<void(user_regs_struct&)>& change) {
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
        if (changed || static_cast<long>(regs.orig_rax) != number || static_cast<int>(regs.rdi) != file) continue;
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
    EXPECT_EQ(EPERM, pread_changed_by_tracer(fd(), SYS_pread64, 0xa000, [](user_regs_struct& regs) {
                  regs.orig_rax = SYS_preadv2;
              }));
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
    // Neighbouring mappings of one file are merged; the merged one is in no single window, so nothing more is allowed.
    FilePolicy adjacent = policy();
    GuardWindow readable;
    readable.offset = readable.vma_offset = 0x4000;
    readable.length = kPage;
    readable.read = readable.mmap = true;
    adjacent.windows = {adjacent.windows[0], readable};
    make_files(adjacent);
    char* space = static_cast<char*>(::mmap(nullptr, 3 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_EQ(space, ::mmap(space, 2 * kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd(), 0x2000));
    ASSERT_EQ(space + 2 * kPage, ::mmap(space + 2 * kPage, kPage, PROT_READ, MAP_SHARED | MAP_FIXED, fd(), 0x4000));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(space, 3 * kPage, PROT_READ | PROT_WRITE); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(space + 2 * kPage, kPage, PROT_READ | PROT_WRITE); }));
    ::munmap(space, 3 * kPage);
}

TEST_F(GuardTest, HammeringThreadsNeverSlipThrough) {
    // Linux before 6.2 skips a program that another task is preempted in; see check_preemption().
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
    ::sleep(4);
    stop = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_GT(calls, 1000U);
    EXPECT_EQ(0U, slipped);
    EXPECT_EQ(0U, skipped_runs());
}

}  // namespace
}  // namespace postern::test
