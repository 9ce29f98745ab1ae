// SPDX-License-Identifier: Apache-2.0
// Who may receive a guarded file, and what a sandbox may do with files of the same kind that nobody
// registered.

#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lab/guard_fixture.h"
#include "tests/lab/guard_strays.h"
#include "tests/support/passing.h"

namespace postern::test {
namespace {

enum class Where { Outside, Sandbox, Below };

class GuardPassingTest : public GuardTest {
  protected:
    void place(pid_t pid, Where where) const {
        if (where == Where::Sandbox) sandbox_->move_here(pid);
        if (where == Where::Below) sandbox_->move_below(pid);
    }

    /// Whether a process there gets `file` over a unix socket. 0: yes, EPERM: no.
    int by_socket(int file, Where where) const {
        int pair[2];
        EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        const UniqueFd ours(pair[0]);
        const UniqueFd theirs(pair[1]);
        EXPECT_EQ(0, send_fd(ours.get(), file));
        return in_child([&] { return receive_fd(theirs.get()) ? 0 : EPERM; },
                        [&](pid_t pid) { place(pid, where); });
    }

    /// The same with pidfd_getfd(2) from a program that has it: into this one, an owner, and into a child of
    /// its that has executed nothing yet, nobody in a sandbox may look.
    int by_pidfd(int file, Where where) const {
        int begun[2];
        EXPECT_EQ(0, ::pipe2(begun, O_CLOEXEC));
        const UniqueFd until(begun[0]);
        const pid_t donor = ::fork();
        if (donor == 0) {
            ::fcntl(file, F_SETFD, 0);
            ::execl("/bin/sleep", "sleep", "60", nullptr);
            ::_exit(127);
        }
        ::close(begun[1]);
        char none;
        EXPECT_EQ(0, ::read(until.get(), &none, 1));
        const UniqueFd pidfd = pidfd_of(donor);
        const int found =
            in_child([&] { return outcome([&] { return fd_from(pidfd.get(), file) ? 0 : -1; }); },
                     [&](pid_t pid) { place(pid, where); });
        ::kill(donor, SIGKILL);
        ::waitpid(donor, nullptr, 0);
        return found;
    }

    void register_with(Forward forward) {
        FilePolicy changed = policy();
        changed.forward = forward;
        make_files(changed);
    }
};

TEST_F(GuardPassingTest, ForwardSandbox) {
    register_with(Forward::Sandbox);
    EXPECT_EQ(0, by_socket(fd(), Where::Sandbox));
    EXPECT_EQ(0, by_socket(fd(), Where::Below));
    EXPECT_EQ(EPERM, by_socket(fd(), Where::Outside));
    EXPECT_EQ(0, by_pidfd(fd(), Where::Sandbox));
    EXPECT_EQ(EPERM, by_pidfd(fd(), Where::Outside));
    EXPECT_EQ(0, by_socket(owner(), Where::Outside));
    EXPECT_EQ(0, by_pidfd(owner(), Where::Outside));
}

TEST_F(GuardPassingTest, ForwardNever) {
    register_with(Forward::Never);
    for (const Where where : {Where::Outside, Where::Sandbox, Where::Below}) {
        EXPECT_EQ(EPERM, by_socket(fd(), where));
        EXPECT_EQ(EPERM, by_pidfd(fd(), where));
    }
}

TEST_F(GuardPassingTest, ForwardAnyone) {
    register_with(Forward::Anyone);
    EXPECT_EQ(0, by_socket(fd(), Where::Outside));
    EXPECT_EQ(0, by_socket(fd(), Where::Sandbox));
    EXPECT_EQ(0, by_pidfd(fd(), Where::Outside));
}

TEST_F(GuardPassingTest, AnotherSandboxIsOutside) {
    const TestCgroup other(fmt::format("guard-other-{}", ::getpid()));
    ASSERT_TRUE(ok(guard_->add_sandbox(other.id(), other.level())));
    int pair[2];
    ASSERT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    const UniqueFd ours(pair[0]);
    const UniqueFd theirs(pair[1]);
    EXPECT_EQ(0, send_fd(ours.get(), fd()));
    EXPECT_EQ(EPERM, in_child([&] { return receive_fd(theirs.get()) ? 0 : EPERM; },
                              [&](pid_t pid) { other.move_here(pid); }));
    ASSERT_TRUE(ok(guard_->remove_sandbox(other.id())));
}

TEST_F(GuardPassingTest, OutOfTheSandboxBySocket) {
    // From inside to a friend outside: the receiver is asked, whoever sends.
    int pair[2];
    ASSERT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    const UniqueFd ours(pair[0]);
    const UniqueFd theirs(pair[1]);
    for (const auto& [file, received] : {std::pair(fd(), false), std::pair(owner(), true)}) {
        EXPECT_EQ(0, in_child([&, sent = file] { return send_fd(theirs.get(), sent) == 0 ? 0 : 1; },
                              [&](pid_t pid) { sandbox_->move_here(pid); }));
        const UniqueFd got = receive_fd(ours.get());
        EXPECT_EQ(received, static_cast<bool>(got));
    }
}

/// io_uring can keep a file in a table of its own and turn it into an fd again (Linux 6.8).
TEST_F(GuardPassingTest, OutOfAnIoUringTable) {
    constexpr uint8_t kFixedFdInstall = 54;  // IORING_OP_FIXED_FD_INSTALL
    register_with(Forward::Never);
    const auto install = [](int file) {
        io_uring_params params{};
        const UniqueFd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 2, &params)));
        if (::syscall(SYS_io_uring_register, ring.get(), IORING_REGISTER_FILES, &file, 1) != 0) return 200;
        const auto map_ring = [&](off_t which) {
            return ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, ring.get(), which);
        };
        char* base = static_cast<char*>(map_ring(IORING_OFF_SQ_RING));
        auto* entry = static_cast<io_uring_sqe*>(map_ring(IORING_OFF_SQES));
        entry->opcode = kFixedFdInstall;
        entry->flags = IOSQE_FIXED_FILE;
        entry->fd = 0;
        *reinterpret_cast<uint32_t*>(base + params.sq_off.array) = 0;
        *reinterpret_cast<uint32_t*>(base + params.sq_off.tail) = 1;
        if (::syscall(SYS_io_uring_enter, ring.get(), 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0) != 1)
            return 201;
        const int result = reinterpret_cast<const io_uring_cqe*>(base + params.cq_off.cqes)->res;
        return result < 0 ? -result : 0;
    };
    const int without_guard = in_child([&] { return install(owner()); });
    // EINVAL: this kernel does not know the operation, so there is nothing to refuse.
    ASSERT_TRUE(without_guard == 0 || without_guard == EINVAL) << without_guard;
    EXPECT_EQ(without_guard == 0 ? EPERM : EINVAL, in_child([&] { return install(fd()); }));
}

// ---- the last row: files of an exclusive kind that are not registered. /dev/zero stands for a driver's
// files. ------

class GuardExclusiveTest : public GuardPassingTest {
  protected:
    void SetUp() override {
        GuardPassingTest::SetUp();
        if (HasFatalFailure()) return;
        zero_.reset(::open("/dev/zero", O_RDWR | O_CLOEXEC));
        ASSERT_TRUE(zero_);
    }
    void TearDown() override {
        zero_.reset();
        GuardPassingTest::TearDown();
    }

    /// stray_refusals() of a process there, with a file that it opened itself or one it inherited.
    [[nodiscard]] int refusals_at(Where where, int inherited = -1) const {
        int pair[2];
        EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        const UniqueFd ours(pair[0]);
        const UniqueFd theirs(pair[1]);
        const UniqueFd sent(::open("/dev/zero", O_RDWR | O_CLOEXEC));
        EXPECT_EQ(0, send_fd(ours.get(), sent.get()));
        return in_child(
            [&] {
                const int file = inherited >= 0 ? inherited : ::open("/dev/zero", O_RDWR | O_CLOEXEC);
                return stray_refusals(file, theirs.get());
            },
            [&](pid_t pid) { place(pid, where); });
    }

    UniqueFd zero_;
};

TEST_F(GuardExclusiveTest, UnregisteredFilesOfALearnedKind) {
    EXPECT_EQ(0, refusals_at(Where::Sandbox));
    ASSERT_TRUE(ok(guard_->learn(zero_.get())));
    EXPECT_EQ(6, refusals_at(Where::Sandbox));
    EXPECT_EQ(6, refusals_at(Where::Below));
    EXPECT_EQ(6, refusals_at(Where::Sandbox, zero_.get()));
    EXPECT_EQ(0, refusals_at(Where::Outside));
    EXPECT_EQ(0U, registered_files() - 1);  // learning registers nothing
}

TEST_F(GuardExclusiveTest, ExclusivePolicy) {
    FilePolicy exclusive = policy();
    exclusive.exclusive = true;
    ASSERT_TRUE(ok(guard_->register_file(zero_.get(), exclusive)));
    EXPECT_EQ(6, refusals_at(Where::Sandbox));
    EXPECT_EQ(0, refusals_at(Where::Outside));
    // The registered one follows its policy, inside and outside.
    char data[8];
    const auto read_window = [&] {
        return outcome([&] { return ::pread(zero_.get(), data, sizeof data, 0xa000); });
    };
    EXPECT_EQ(0, read_window());
    EXPECT_EQ(0, in_child(read_window, [&](pid_t pid) { sandbox_->move_here(pid); }));
}

TEST_F(GuardExclusiveTest, MprotectOfAnUnregisteredMapping) {
    ASSERT_TRUE(ok(guard_->learn(zero_.get())));
    // A private mapping of /dev/zero is anonymous memory for the kernel, yet keeps its file.
    expect_stray_mapping_stays(zero_.get(), MAP_PRIVATE, *sandbox_);
}

TEST_F(GuardExclusiveTest, OtherKindsAreLeftAlone) {
    ASSERT_TRUE(ok(guard_->learn(zero_.get())));
    EXPECT_EQ(0, in_child(
                     [] {
                         const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
                         char data[8] = {};
                         return outcome([&] { return ::write(null.get(), data, sizeof data); });
                     },
                     [&](pid_t pid) { sandbox_->move_here(pid); }));
}

TEST_F(GuardExclusiveTest, ARemovedSandboxIsNoneAnyMore) {
    ASSERT_TRUE(ok(guard_->learn(zero_.get())));
    EXPECT_EQ(6, refusals_at(Where::Sandbox));
    ASSERT_TRUE(ok(guard_->remove_sandbox(sandbox_->id())));
    EXPECT_EQ(0, refusals_at(Where::Sandbox));
}

}  // namespace
}  // namespace postern::test
