// SPDX-License-Identifier: Apache-2.0
// A file that cannot be opened twice: its owner and all clients have one struct file. Who passes for whom.

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include "bpf/policy.h"
#include "broker-core/guard_owner.h"
#include "broker-core/guarded_file.h"
#include "broker-core/programs.h"
#include "tests/lab/guard_fixture.h"
#include "tests/support/passing.h"

namespace postern::test {
namespace {

/// Page 2 is the first sandbox's, page 5 the second's.
class GuardOwnerTest : public GuardTest {
  protected:
    void SetUp() override {
        GuardTest::SetUp();
        if (HasFatalFailure()) return;
        second_.emplace(fmt::format("guard-second-{}", ::getpid()));
        empty_.emplace(fmt::format("guard-empty-{}", ::getpid()));
        ASSERT_TRUE(ok(guard_->add_sandbox(second_->id(), 1)));
        ASSERT_TRUE(ok(guard_->add_sandbox(empty_->id(), 1)));
        file_ = make_file();
    }
    void TearDown() override {
        file_.reset();
        GuardTest::TearDown();
        second_.reset();
        empty_.reset();
    }

    static UniqueFd make_file() {
        UniqueFd file(::memfd_create("shared", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        EXPECT_EQ(0, ::ftruncate(file.get(), 16 * kPage));
        // A mapping of what can grow reaches no further, then.
        EXPECT_EQ(0, ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK));
        return file;
    }
    [[nodiscard]] FilePolicy part(const TestCgroup& sandbox, uint64_t page, const char* grant) const {
        FilePolicy part = GuardTest::policy();
        part.grant = grant;
        part.shared = true;
        part.sandbox_cgroup_id = sandbox.id();
        part.windows = {{.offset = page * kPage,
                         .length = kPage,
                         .vma_offset = page * kPage,
                         .read = true,
                         .write = true,
                         .mmap = true,
                         .pread = true}};
        return part;
    }
    void share() {
        ASSERT_TRUE(ok(guard_->share_file(file(), part(*sandbox_, 2, "one"))));
        ASSERT_TRUE(ok(guard_->share_file(file(), part(*second_, 5, "two"))));
    }
    [[nodiscard]] int file() const { return file_.get(); }

    [[nodiscard]] static int read_at(int fd, uint64_t page) {
        char byte = 0;
        return outcome([&] { return ::pread(fd, &byte, 1, static_cast<off_t>(page * kPage)); });
    }
    [[nodiscard]] static int map_at(int fd, uint64_t page) {
        void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(page * kPage));
        if (at == MAP_FAILED) return errno;
        ::munmap(at, kPage);
        return 0;
    }
    [[nodiscard]] static int ask(int fd) {
        int bytes = 0;
        return outcome([&] { return ::ioctl(fd, FIONREAD, &bytes); });
    }
    /// A process there reads this page by both ways: 0, or the errno that both give.
    [[nodiscard]] int from(const TestCgroup* where, uint64_t page) const {
        return in_child(
            [&] {
                const int read = read_at(file(), page);
                const int mapped = map_at(file(), page);
                return read == mapped ? read : kWrong;
            },
            [&](pid_t pid) {
                if (where != nullptr) where->move_here(pid);
            });
    }

    std::optional<TestCgroup> second_;
    std::optional<TestCgroup> empty_;  ///< a sandbox that has no part in the file
    UniqueFd file_;
};

TEST_F(GuardOwnerTest, EachSandboxHasItsOwnPart) {
    EXPECT_EQ(0, from(nullptr, 2));  // the control, before it is shared
    share();
    EXPECT_EQ(0, from(&*sandbox_, 2));
    EXPECT_EQ(EPERM, from(&*sandbox_, 5));
    EXPECT_EQ(EPERM, from(&*second_, 2));
    EXPECT_EQ(0, from(&*second_, 5));
    for (const uint64_t page : {2U, 5U}) {
        EXPECT_EQ(EPERM, from(&*empty_, page));
        EXPECT_EQ(EPERM, from(nullptr, page));
        EXPECT_EQ(0, read_at(file(), page));
        EXPECT_EQ(0, map_at(file(), page));
    }
    EXPECT_EQ(0, read_at(file(), 9));  // the owner's is all of it
}

TEST_F(GuardOwnerTest, IoctlsToo) {
    share();
    const auto in = [&](const TestCgroup* where) {
        return in_child([&] { return ask(file()); },
                        [&](pid_t pid) {
                            if (where != nullptr) where->move_here(pid);
                        });
    };
    EXPECT_EQ(0, ask(file()));
    EXPECT_EQ(0, in(&*sandbox_));
    EXPECT_EQ(EPERM, in(&*empty_));
    EXPECT_EQ(EPERM, in(nullptr));
}

TEST_F(GuardOwnerTest, ProofIsDoneInTheSandbox) {
    EXPECT_TRUE(ok(guard_file(*guard_, file(), part(*sandbox_, 15, "one"))));
    EXPECT_EQ(0U, guard_->denied("one").value_or(99));  // what was tried for it is no client's refusal
    EXPECT_EQ(0, from(&*sandbox_, 15));
    EXPECT_EQ(EPERM, from(&*sandbox_, 2));
    EXPECT_EQ(2U, guard_->denied("one").value_or(99));
}

TEST_F(GuardOwnerTest, AForkOfTheOwnerIsNotTheOwner) {
    share();
    EXPECT_EQ(EPERM, in_child([&] { return read_at(file(), 9); }));
    EXPECT_EQ(EPERM, in_child([&] { return in_child([&] { return read_at(file(), 9); }); }));
    EXPECT_EQ(0, read_at(file(), 9));
}

TEST_F(GuardOwnerTest, ThreadsOfTheOwnerAreTheOwner) {
    share();
    int found = kWrong;
    std::thread([&] { found = read_at(file(), 9); }).join();
    EXPECT_EQ(0, found);
}

/// Owner of a file of its own; then its first thread ends and another goes on.
TEST_F(GuardOwnerTest, AThreadThatOutlivesItsLeader) {
    const int status = in_child([&] {
        auto guard = Guard::acquire();
        if (!guard || !guard->share_file(file(), part(*sandbox_, 2, "one"))) return 99;
        static int fd = -1;
        static pid_t leader = 0;
        fd = file();
        leader = ::getpid();
        pthread_t other{};
        ::pthread_create(
            &other, nullptr,
            [](void*) -> void* {
                // proc(5): a leader that has ended before its threads is a zombie.
                const bool gone = eventually([] {
                    std::ifstream file_of_leader(fmt::format("/proc/self/task/{}/status", leader));
                    const std::string text(std::istreambuf_iterator<char>(file_of_leader), {});
                    return text.find("State:\tZ") != std::string::npos;
                });
                const int mine = read_at(fd, 9);
                const int child = in_child([] { return read_at(fd, 9); });
                ::_exit(gone && mine == 0 && child == EPERM ? 0 : 1 + mine + child);
            },
            nullptr);
        ::syscall(SYS_exit, 0);
        return 98;
    });
    EXPECT_EQ(0, status);
    // It was the child's, and the child is gone: not this process's either, until it says so.
    EXPECT_EQ(EPERM, read_at(file(), 9));
    EXPECT_TRUE(ok(guard_->claim(file())));
    EXPECT_EQ(0, read_at(file(), 9));
}

/// In a child that owns the file: it executes a program, which reads what it inherits.
int execute_as_owner(int fd, bool by_another_thread) {
    // By its standard input head has the very file; one that it is named it would open anew.
    ::dup2(fd, STDIN_FILENO);
    const auto through = [] { ::execlp("head", "head", "-c", "1", nullptr); };
    if (by_another_thread) {
        std::thread(through).join();
    } else {
        through();
    }
    return 97;
}

TEST_F(GuardOwnerTest, WhoExecutesAnotherProgramIsTheOwnerNoMore) {
    const UniqueFd control = make_file();
    for (const bool by_another_thread : {false, true}) {
        EXPECT_EQ(0, in_child([&] { return execute_as_owner(control.get(), by_another_thread); }));
        EXPECT_EQ(1, in_child([&] {
                      auto guard = Guard::acquire();
                      if (!guard || !guard->share_file(file(), part(*sandbox_, 2, "one"))) return 99;
                      if (read_at(file(), 9) != 0) return 98;
                      guard->leave();
                      return execute_as_owner(file(), by_another_thread);
                  }));
        file_ = make_file();
    }
}

TEST_F(GuardOwnerTest, ProgramsOfTheOwner) {
    share();
    const auto run = [&](bool exempt, const char* script) {
        std::string output;
        const auto mark = ChildMark::program();
        EXPECT_TRUE(ok(mark));
        return run_program({"/bin/sh", "-c", script}, "/", {{"device", file()}}, &output, ProgramSignals::End,
                           exempt ? &*mark : nullptr);
    };
    // read(2) is never a client's.
    EXPECT_TRUE(ok(run(true, "head -c 1 <&3")));
    EXPECT_TRUE(ok(run(true, "sh -c 'head -c 1 <&3'; exec head -c 1 <&3")));
    EXPECT_FALSE(run(false, "head -c 1 <&3"));
    // One that outlives its program is nobody's child any more.
    const auto late = [&](const char* source) {
        EXPECT_TRUE(ok(
            run(true,
                fmt::format("rm -f /tmp/late /tmp/late.new; (sleep 1; head -c 1 <{}; echo $? >/tmp/late.new; "
                            "mv /tmp/late.new /tmp/late) >/dev/null 2>&1 &",
                            source)
                    .c_str())));
        EXPECT_TRUE(eventually([] { return ::access("/tmp/late", F_OK) == 0; }));
        int status = -1;
        std::ifstream("/tmp/late") >> status;
        return status;
    };
    EXPECT_EQ(1, late("&3"));
    EXPECT_EQ(0, late("/dev/zero"));  // the control
}

int look_into(pid_t target) {
    const UniqueFd pidfd = pidfd_of(target);
    const int taken = outcome([&] { return fd_from(pidfd.get(), STDIN_FILENO) ? 0 : -1; });
    const int seized = outcome([&] { return ::ptrace(PTRACE_SEIZE, target, nullptr, nullptr); });
    if (seized == 0) ::ptrace(PTRACE_DETACH, target, nullptr, nullptr);
    static char here;
    iovec local{&here, 1};
    iovec remote{&here, 1};
    int read = outcome([&] { return ::process_vm_readv(target, &local, 1, &remote, 1, 0); });
    if (read == EFAULT) read = 0;  // allowed: another program, with nothing there
    const int memory =
        outcome([&] { return ::open(fmt::format("/proc/{}/mem", target).c_str(), O_RDWR | O_CLOEXEC); });
    const bool all = taken == EPERM && seized == EPERM && read == EPERM && memory == EACCES;
    const bool none = taken == 0 && seized == 0 && read == 0 && memory == 0;
    return none ? 0 : all ? EPERM : kWrong;
}

pid_t start_child(const std::function<void()>& body) {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    body();
    ::_exit(0);
}

/// The child of a child, which has `mark` and waits.
pid_t start_grandchild(const std::function<void()>& body, const ChildMark* mark = nullptr) {
    int told[2];
    EXPECT_EQ(0, ::pipe2(told, O_CLOEXEC));
    start_child([&] {
        if (mark != nullptr && !mark->apply()) return;
        const pid_t pid = start_child(body);
        (void)!::write(told[1], &pid, sizeof pid);
        ::waitpid(pid, nullptr, 0);
    });
    ::close(told[1]);
    pid_t pid = -1;
    EXPECT_EQ(static_cast<ssize_t>(sizeof pid), ::read(told[0], &pid, sizeof pid));
    ::close(told[0]);
    return pid;
}

std::string name_of(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/comm", pid));
    std::string name;
    std::getline(file, name);
    return name;
}

TEST_F(GuardOwnerTest, NobodyInASandboxLooksIntoAnOwner) {
    share();
    const pid_t owner = ::getpid();
    auto mark = ChildMark::proof();
    auto runs = ChildMark::program();
    ASSERT_TRUE(ok(mark));
    ASSERT_TRUE(ok(runs));
    // A child that has executed nothing yet has the owner's files; what it executes has not, but for the
    // mark's.
    const pid_t fork = start_child([] { ::pause(); });
    const pid_t forks = start_grandchild([] { ::pause(); });
    const pid_t other = start_child([] { ::execl("/bin/sleep", "sleep", "60", nullptr); });
    const pid_t others = start_grandchild([] { ::execl("/bin/sleep", "sleep", "60", nullptr); });
    const pid_t program = start_grandchild([] { ::execl("/bin/sleep", "sleep", "60", nullptr); }, &*runs);
    const pid_t marked = start_child([&] {
        if (mark->apply()) ::execl("/bin/sleep", "sleep", "60", nullptr);
    });
    for (const pid_t pid : {other, others, marked, program}) {
        for (int i = 0; i < 10000 && name_of(pid) != "sleep"; i++) ::usleep(1000);
        ASSERT_EQ("sleep", name_of(pid));
    }
    for (const TestCgroup* where : {&*sandbox_, &*empty_}) {
        const auto move = [&](pid_t pid) { where->move_below(pid); };
        for (const pid_t pid : {owner, fork, forks, marked, program})
            EXPECT_EQ(EPERM, in_child([&] { return look_into(pid); }, move)) << pid;
        for (const pid_t pid : {other, others})
            EXPECT_EQ(0, in_child([&] { return look_into(pid); }, move)) << pid;
    }
    for (const pid_t pid : {owner, fork, forks, marked, program})
        EXPECT_EQ(0, in_child([&] { return look_into(pid); }));
    // The grandchildren first: their parents wait for them.
    for (const pid_t pid : {forks, others, program, fork, other, marked}) ::kill(pid, SIGKILL);
    for (int i = 0; i < 6; i++) ::wait(nullptr);
}

/// A child with this pid, which must be free.
int with_pid(pid_t pid, const std::function<int()>& body) {
    clone_args how{};
    how.exit_signal = SIGCHLD;
    how.set_tid = reinterpret_cast<uint64_t>(&pid);
    how.set_tid_size = 1;
    const long child = ::syscall(SYS_clone3, &how, sizeof how);
    if (child < 0) return kWrong + errno;
    if (child == 0) ::_exit(body());
    int status = 0;
    ::waitpid(static_cast<pid_t>(child), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : kWrong;
}

TEST_F(GuardOwnerTest, TheOwnersNumberIsNotTheOwner) {
    pid_t number = 0;
    int told[2];
    ASSERT_EQ(0, ::pipe2(told, O_CLOEXEC));
    EXPECT_EQ(0, in_child([&] {
                  auto guard = Guard::acquire();
                  if (!guard || !guard->share_file(file(), part(*sandbox_, 2, "one"))) return 99;
                  const pid_t self = ::getpid();
                  (void)!::write(told[1], &self, sizeof self);
                  const int found = read_at(file(), 9);
                  guard->leave();
                  return found;
              }));
    ASSERT_EQ(static_cast<ssize_t>(sizeof number), ::read(told[0], &number, sizeof number));
    ::close(told[0]);
    ::close(told[1]);
    EXPECT_EQ(EPERM, with_pid(number, [&] { return ::getpid() == number ? read_at(file(), 9) : 96; }));
    // The owner's death leaves nobody exempt, and its clients as they were.
    EXPECT_EQ(EPERM, read_at(file(), 9));
    EXPECT_EQ(0, from(&*sandbox_, 2));
    EXPECT_TRUE(ok(guard_->claim(file())));
    EXPECT_EQ(0, read_at(file(), 9));
}

bool drop_capability(unsigned capability) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> sets{};
    if (::syscall(SYS_capget, &header, sets.data()) != 0) return false;
    sets.at(capability / 32).effective &= ~(1U << capability % 32);
    return ::syscall(SYS_capset, &header, sets.data()) == 0;
}

TEST_F(GuardOwnerTest, WhoMayHoldIt) {
    share();
    const auto receive = [&](const TestCgroup* where, const std::function<bool()>& become = {}) {
        int pair[2];
        EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        const UniqueFd ours(pair[0]);
        const UniqueFd theirs(pair[1]);
        EXPECT_EQ(0, send_fd(ours.get(), file()));
        return in_child(
            [&] {
                if (become && !become()) return static_cast<int>(kWrong);
                const UniqueFd got = receive_fd(theirs.get());
                return got ? 100 + read_at(got.get(), 2) : EPERM;
            },
            [&](pid_t pid) {
                if (where != nullptr) where->move_here(pid);
            });
    };
    EXPECT_EQ(100, receive(&*sandbox_));
    EXPECT_EQ(100 + EPERM, receive(&*second_));
    EXPECT_EQ(EPERM, receive(&*empty_));
    // Whoever keeps it for its owner: to hold it is all that may be done.
    EXPECT_EQ(100 + EPERM, receive(nullptr));
    // Nobody else: a driver that is told of the file asks no hook.
    EXPECT_EQ(EPERM, receive(nullptr, [] { return ::setresuid(65534, 65534, 65534) == 0; }));
    EXPECT_EQ(EPERM, receive(nullptr, [] { return ::unshare(CLONE_NEWUSER) == 0; }));
    EXPECT_EQ(EPERM, receive(nullptr, [] { return drop_capability(CAP_SYS_ADMIN); }));
    EXPECT_EQ(100 + EPERM, receive(nullptr, [] { return drop_capability(CAP_NET_ADMIN); }));
    // In the sandbox as before, whoever it is.
    EXPECT_EQ(100, receive(&*sandbox_, [] { return ::setresuid(65534, 65534, 65534) == 0; }));
}

/// By pidfd_getfd(2), which asks no one who has the file: same user, out of the sandbox.
TEST_F(GuardOwnerTest, WhoMayTakeIt) {
    share();
    const UniqueFd plain(::memfd_create("plain", MFD_CLOEXEC));
    const auto take = [&](uid_t uid, int fd) {
        int told[2];
        EXPECT_EQ(0, ::pipe2(told, O_CLOEXEC));
        const UniqueFd ready(told[0]);
        UniqueFd tells(told[1]);
        const pid_t client = ::fork();
        if (client == 0) {
            if (::setresuid(uid, uid, uid) != 0 || ::prctl(PR_SET_DUMPABLE, 1) != 0) ::_exit(1);
            (void)!::write(tells.get(), "x", 1);
            ::pause();
            ::_exit(0);
        }
        sandbox_->move_here(client);
        char byte = 0;
        EXPECT_EQ(1, ::read(ready.get(), &byte, 1));
        const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, client, 0)));
        const int found = in_child([&] {
            if (::setresuid(uid, uid, uid) != 0) return static_cast<int>(kWrong);
            return outcome([&] { return ::syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0); });
        });
        ::kill(client, SIGKILL);
        ::waitpid(client, nullptr, 0);
        return found;
    };
    EXPECT_EQ(EPERM, take(65534, file()));
    EXPECT_EQ(0, take(65534, plain.get()));  // the controls
    EXPECT_EQ(0, take(0, file()));
}

TEST_F(GuardOwnerTest, WhatIsGivenUpStaysGivenUp) {
    share();
    EXPECT_EQ(EALREADY, in_child(
                            [&] {
                                return outcome([&] {
                                    return ::ioctl(file(), POSTERN_IOC_RESTRICT,
                                                   static_cast<uint64_t>(POSTERN_RESTRICT_WINDOWS) << 56 |
                                                       POSTERN_WINDOW_PREAD);
                                });
                            },
                            [&](pid_t pid) { sandbox_->move_here(pid); }));
    const auto read_in = [&](const TestCgroup& where, uint64_t page) {
        return in_child([&] { return read_at(file(), page); }, [&](pid_t pid) { where.move_here(pid); });
    };
    EXPECT_EQ(EPERM, read_in(*sandbox_, 2));
    EXPECT_EQ(0, read_in(*second_, 5));  // the others' parts are theirs
    // It is not handed out again, nor is another grant's.
    EXPECT_FALSE(guard_->share_file(file(), part(*sandbox_, 2, "one")));
    EXPECT_EQ(EPERM, read_in(*sandbox_, 2));
    EXPECT_FALSE(guard_->share_file(file(), part(*sandbox_, 2, "three")));
    EXPECT_FALSE(guard_->share_file(file(), part(*sandbox_, 3, "one")));
    FilePolicy fewer = part(*second_, 5, "two");
    fewer.windows[0].write = false;
    EXPECT_FALSE(guard_->share_file(file(), fewer));
    // One of which nothing was given up is what it was, until it is revoked.
    EXPECT_TRUE(ok(guard_->share_file(file(), part(*second_, 5, "two"))));
    EXPECT_EQ(1U, guard_->revoke("two").value_or(0));
    EXPECT_FALSE(guard_->share_file(file(), part(*second_, 5, "two")));
}

TEST_F(GuardOwnerTest, RevokedMovedEnded) {
    share();
    EXPECT_FALSE(guard_->has_files("one").value_or(true));
    ASSERT_TRUE(ok(guard_->move("one", {empty_->id(), 1})));
    EXPECT_EQ(EPERM, from(&*sandbox_, 2));
    EXPECT_EQ(0, from(&*empty_, 2));
    EXPECT_EQ(1U, guard_->revoke("one").value_or(0));
    EXPECT_EQ(EPERM, from(&*empty_, 2));
    EXPECT_EQ(0, from(&*second_, 5));
    EXPECT_EQ(0U, guard_->denied("two").value_or(99));
    EXPECT_LT(0U, guard_->denied("one").value_or(0));
    EXPECT_FALSE(guard_->end_shares("one").value_or(true));
    EXPECT_EQ(0U, guard_->revoke("one").value_or(9));
    ASSERT_TRUE(ok(guard_->remove_sandbox(second_->id())));
    EXPECT_EQ(EPERM, from(&*second_, 5));
}

/// A process that has mapped its part and left the sandbox holds the end of its grant up.
TEST_F(GuardOwnerTest, AMappingThatIsLeft) {
    share();
    int ready[2];
    int go[2];
    ASSERT_EQ(0, ::pipe2(ready, O_CLOEXEC));
    ASSERT_EQ(0, ::pipe2(go, O_CLOEXEC));
    const pid_t child = ::fork();
    if (child == 0) {
        sandbox_->move_here(::getpid());
        void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file(), 2 * kPage);
        std::string out = "0";
        const int procs = ::open("/sys/fs/cgroup/cgroup.procs", O_WRONLY | O_CLOEXEC);
        (void)!::write(procs, out.data(), out.size());
        char byte = at == MAP_FAILED ? 'x' : 'm';
        (void)!::write(ready[1], &byte, 1);
        (void)!::read(go[0], &byte, 1);
        // A new one is refused wherever it is: the grant is revoked first.
        sandbox_->move_here(::getpid());
        byte = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file(), 2 * kPage) == MAP_FAILED ? 'r' : 'x';
        ::munmap(at, kPage);
        (void)!::write(ready[1], &byte, 1);
        (void)!::read(go[0], &byte, 1);
        ::_exit(0);
    }
    char byte = 0;
    ASSERT_EQ(1, ::read(ready[0], &byte, 1));
    EXPECT_EQ('m', byte);
    EXPECT_TRUE(guard_->end_shares("one").value_or(false));
    EXPECT_FALSE(guard_->end_shares("two").value_or(true));  // page 5 is mapped by nobody
    ASSERT_EQ(1, ::write(go[1], "g", 1));
    ASSERT_EQ(1, ::read(ready[0], &byte, 1));
    EXPECT_EQ('r', byte);
    EXPECT_FALSE(guard_->end_shares("one").value_or(true));
    ASSERT_EQ(1, ::write(go[1], "g", 1));
    ::waitpid(child, nullptr, 0);
    for (const int fd : {ready[0], ready[1], go[0], go[1]}) ::close(fd);
}

/// Who leaves the guard, or begins with it, sweeps what nobody needs. A part of a file that is still open is
/// none of that: a mapping may be left of it.
TEST_F(GuardOwnerTest, ASweepLeavesWhatIsMapped) {
    share();
    int ready[2];
    ASSERT_EQ(0, ::pipe2(ready, O_CLOEXEC));
    const pid_t child = ::fork();
    if (child == 0) {
        sandbox_->move_here(::getpid());
        const char byte =
            ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file(), 2 * kPage) == MAP_FAILED ? 'x' : 'm';
        const int procs = ::open("/sys/fs/cgroup/cgroup.procs", O_WRONLY | O_CLOEXEC);
        (void)!::write(procs, "0", 1);
        (void)!::write(ready[1], &byte, 1);
        ::pause();
    }
    char byte = 0;
    ASSERT_EQ(1, ::read(ready[0], &byte, 1));
    EXPECT_EQ('m', byte);
    guard_->leave();
    // Alone with the guard, as who starts after a broker's death is.
    LeaveSuite();
    auto next = Guard::acquire();
    ASSERT_TRUE(ok(next));
    guard_.emplace(std::move(*next));
    SetUpTestSuite();
    EXPECT_TRUE(guard_->end_shares("one").value_or(false))
        << "the sandbox is empty and swept, the mapping is there";
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    EXPECT_FALSE(guard_->end_shares("one").value_or(true));
    for (const int fd : ready) ::close(fd);
}

/// A window that can only be read is at no place of a mapping: that somebody else has mapped page 0 is not
/// its.
TEST_F(GuardOwnerTest, WhatCannotBeMappedIsNotLookedFor) {
    FilePolicy reads = part(*sandbox_, 2, "one");
    reads.windows[0].mmap = false;
    ASSERT_TRUE(ok(guard_->share_file(file(), reads)));
    ASSERT_TRUE(ok(guard_->share_file(file(), part(*second_, 0, "two"))));
    int ready[2];
    ASSERT_EQ(0, ::pipe2(ready, O_CLOEXEC));
    const pid_t child = ::fork();
    if (child == 0) {
        second_->move_here(::getpid());
        const char byte = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file(), 0) == MAP_FAILED ? 'x' : 'm';
        (void)!::write(ready[1], &byte, 1);
        ::pause();
    }
    char byte = 0;
    ASSERT_EQ(1, ::read(ready[0], &byte, 1));
    EXPECT_EQ('m', byte);
    EXPECT_FALSE(guard_->end_shares("one").value_or(true));
    EXPECT_TRUE(guard_->end_shares("two").value_or(false));  // the control
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (const int fd : ready) ::close(fd);
}

TEST_F(GuardOwnerTest, WhatCannotBeShared) {
    FilePolicy nowhere = part(*sandbox_, 2, "one");
    nowhere.sandbox_cgroup_id = 0;
    nowhere.forward = Forward::Never;
    EXPECT_FALSE(guard_->share_file(file(), nowhere));
    FilePolicy anyone = part(*sandbox_, 2, "one");
    anyone.forward = Forward::Anyone;
    EXPECT_FALSE(guard_->share_file(file(), anyone));
    EXPECT_EQ(0, from(nullptr, 2));  // nothing is left of the attempts
    EXPECT_TRUE(ok(guard_->share_file(file(), part(*sandbox_, 2, "one"))));
}

}  // namespace
}  // namespace postern::test
