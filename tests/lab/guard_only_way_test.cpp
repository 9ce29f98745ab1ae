// SPDX-License-Identifier: Apache-2.0
// Files that can be opened anew, and may be used in their sandbox only as they were registered: memfds and
// character devices.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/hostile/uring.h"
#include "tests/lab/guard_fixture.h"
#include "tests/lab/guard_strays.h"
#include "tests/support/passing.h"

namespace postern::test {
namespace {

class GuardOnlyWayTest : public GuardTest {
  protected:
    void SetUp() override {
        GuardTest::SetUp();
        if (HasFatalFailure()) return;
        FilePolicy only = policy();
        only.exclusive = false;
        only.only_way = true;
        make_files(only);
    }

    /// stray_refusals() of a process in the sandbox, or outside, with a plain file that it inherits and is
    /// sent.
    [[nodiscard]] int refusals_of(int plain, const TestCgroup* sandbox) const {
        int pair[2];
        EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        const UniqueFd ours(pair[0]);
        const UniqueFd theirs(pair[1]);
        EXPECT_EQ(0, send_fd(ours.get(), plain));
        return in_child([&] { return stray_refusals(plain, theirs.get()); },
                        [&](pid_t pid) {
                            if (sandbox != nullptr) sandbox->move_below(pid);
                        });
    }
};

TEST_F(GuardOnlyWayTest, TheSameInodeOpenedAnew) {
    const UniqueFd again = reopened(owner(), O_RDWR);
    EXPECT_EQ(6, refusals_of(owner(), &*sandbox_));
    EXPECT_EQ(6, refusals_of(again.get(), &*sandbox_));
    EXPECT_EQ(0, refusals_of(again.get(), nullptr));
}

TEST_F(GuardOnlyWayTest, OtherInodesOfTheKindAreLeftAlone) {
    const UniqueFd other(::memfd_create("other", MFD_CLOEXEC));
    ASSERT_EQ(0, ::ftruncate(other.get(), kPage));
    EXPECT_EQ(0, refusals_of(other.get(), &*sandbox_));
    EXPECT_EQ(6, refusals_of(owner(), &*sandbox_));
}

TEST_F(GuardOnlyWayTest, OtherSandboxesAreLeftAlone) {
    const TestCgroup other(fmt::format("guard-way-{}", ::getpid()));
    ASSERT_TRUE(ok(guard_->add_sandbox(other.id(), other.level())));
    EXPECT_EQ(0, refusals_of(owner(), &other));
    EXPECT_EQ(6, refusals_of(owner(), &*sandbox_));
    ASSERT_TRUE(ok(guard_->remove_sandbox(other.id())));
}

TEST_F(GuardOnlyWayTest, HoldsAsLongAsOneRegisteredFileIsOpen) {
    UniqueFd second = reopened(owner(), O_RDWR);
    FilePolicy only = policy();
    only.exclusive = false;
    only.only_way = true;
    ASSERT_TRUE(ok(guard_->register_file(second.get(), only)));
    guarded_.reset();
    EXPECT_EQ(6, refusals_of(owner(), &*sandbox_));
    second.reset();
    // The last one is closed: there is no policy to get around.
    EXPECT_TRUE(eventually([&] { return refusals_of(owner(), &*sandbox_) == 0; }));
}

TEST_F(GuardOnlyWayTest, AMappingThatWasThereBefore) {
    expect_stray_mapping_stays(owner(), MAP_SHARED, *sandbox_);
}

TEST_F(GuardOnlyWayTest, ACharacterDeviceIsOneByWhateverNode) {
    const std::string twin = fmt::format("/dev/guard-twin-{}", ::getpid());
    const std::string other = fmt::format("/dev/guard-other-{}", ::getpid());
    // The numbers of /dev/full and /dev/null: Documentation/admin-guide/devices.txt.
    ASSERT_EQ(0, ::mknod(twin.c_str(), S_IFCHR | 0600, ::makedev(1, 7)));
    ASSERT_EQ(0, ::mknod(other.c_str(), S_IFCHR | 0600, ::makedev(1, 3)));
    const UniqueFd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
    const UniqueFd full_by_twin(::open(twin.c_str(), O_RDWR | O_CLOEXEC));
    const UniqueFd null(::open(other.c_str(), O_RDWR | O_CLOEXEC));
    ::unlink(twin.c_str());
    ::unlink(other.c_str());
    ASSERT_TRUE(full && full_by_twin && null);
    FilePolicy only = policy();
    only.windows = {};
    only.exclusive = false;
    only.only_way = true;
    ASSERT_TRUE(ok(guard_->register_file(full.get(), only)));
    const auto read_there = [&](int file, bool inside) {
        return in_child(
            [&] {
                char byte = 0;
                return outcome([&] { return ::pread(file, &byte, 1, 0); });
            },
            [&](pid_t pid) {
                if (inside) sandbox_->move_here(pid);
            });
    };
    EXPECT_EQ(EPERM, read_there(full_by_twin.get(), true));
    EXPECT_EQ(0, read_there(full_by_twin.get(), false));
    EXPECT_EQ(0, read_there(null.get(), true));
}

/// io_uring hands a driver commands of its own by no hook of a file. /dev/null takes any (Linux 6.1 has it).
TEST_F(GuardOnlyWayTest, UringCommands) {
    constexpr uint8_t kUringCmd = 46;  // IORING_OP_URING_CMD
    const auto command = [](int file) {
        return in_child([&] {
            hostile::Uring ring;
            if (!ring.open(0)) return kWrong;
            io_uring_sqe* entry = ring.next();
            entry->opcode = kUringCmd;
            entry->fd = file;
            if (!ring.run()) return kWrong;
            return -ring.result(0);
        });
    };
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const UniqueFd plain(::open("/dev/null", O_RDWR | O_CLOEXEC));
    ASSERT_EQ(0, command(null.get()));
    FilePolicy only = policy();
    only.windows = {};
    only.exclusive = false;
    only.only_way = true;
    ASSERT_TRUE(ok(guard_->register_file(null.get(), only)));
    EXPECT_EQ(EPERM, command(null.get()));
    EXPECT_EQ(0, command(plain.get()));
}

}  // namespace
}  // namespace postern::test
