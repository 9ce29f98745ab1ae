// SPDX-License-Identifier: Apache-2.0
// The guard's life: who shares it, what outlives whom, and what is left.

#include <bpf/bpf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "broker-core/guard_loader.h"
#include "tests/lab/guard_fixture.h"
#include "tests/support/passing.h"

namespace postern::test {
namespace {

/// Alone: attaches and detaches in every test.
class GuardLifeTest : public GuardTest {
  protected:
    static void SetUpTestSuite() {}
    static void TearDownTestSuite() {}
    void TearDown() override {
        GuardTest::TearDown();
        EXPECT_FALSE(attached());
    }
};

TEST_F(GuardLifeTest, EntryEndsWithTheFile) {
    EXPECT_EQ(1U, registered_files());
    guarded_.reset();
    EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
}

TEST_F(GuardLifeTest, EntryEndsWithTheLastDuplicate) {
    UniqueFd copy(::dup(fd()));
    guarded_.reset();
    EXPECT_EQ(1U, registered_files());
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(copy.get(), FIOCLEX); }));
    copy.reset();
    EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
}

TEST_F(GuardLifeTest, LiveMappingKeepsTheEntry) {
    void* at = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd(), 0x5000);
    ASSERT_NE(MAP_FAILED, at);
    guarded_.reset();
    EXPECT_EQ(1U, registered_files());
    EXPECT_EQ(EPERM, outcome([&] { return ::mprotect(at, kPage, PROT_READ | PROT_WRITE); }));
    ::munmap(at, kPage);
    EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
}

TEST_F(GuardLifeTest, RegisteredOnlyOnce) {
    const auto again = guard_->register_file(fd(), policy());
    ASSERT_FALSE(again);
    EXPECT_NE(std::string::npos, again.error().message.find("has a policy already"));
    // Nor by another number of the same file.
    const UniqueFd copy(::dup(fd()));
    EXPECT_FALSE(guard_->register_file(copy.get(), policy()));
    EXPECT_EQ(1U, registered_files());
}

TEST_F(GuardLifeTest, RegisteringWhatIsNotThere) {
    EXPECT_FALSE(guard_->register_file(-1, policy()));
    EXPECT_FALSE(guard_->register_file(999, policy()));
    EXPECT_FALSE(guard_->learn(999));
    FilePolicy senseless = policy();
    senseless.windows[0].length = 0;
    const UniqueFd other = reopened(owner(), O_RDWR);
    EXPECT_FALSE(guard_->register_file(other.get(), senseless));
    EXPECT_EQ(1U, registered_files());
    // A failed request is not found by the next one: fd 999 is open now.
    const UniqueFd late(::fcntl(owner(), F_DUPFD_CLOEXEC, 999));
    ASSERT_EQ(999, late.get());
    EXPECT_TRUE(ok(guard_->register_file(other.get(), policy())));
    EXPECT_EQ(2U, registered_files());
    EXPECT_EQ(0, outcome([&] { return ::ioctl(late.get(), FIOCLEX); }));
}

TEST_F(GuardLifeTest, RegisteringFromAThread) {
    const UniqueFd other = reopened(owner(), O_RDWR);
    std::thread([&] { EXPECT_TRUE(ok(guard_->register_file(other.get(), policy()))); }).join();
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(other.get(), FIOCLEX); }));
}

TEST_F(GuardLifeTest, OtherThreadsTablesDoNotCount) {
    // A thread with fds of its own: what it has at the same number is not registered.
    const UniqueFd other = reopened(owner(), O_RDWR);
    std::thread([&] {
        ASSERT_EQ(0, ::unshare(CLONE_FILES));
        const UniqueFd mine = reopened(owner(), O_RDWR);
        // The main thread has nothing there.
        ASSERT_EQ(-1, ::fcntl(mine.get() + 100, F_GETFD));
        const UniqueFd high(::fcntl(mine.get(), F_DUPFD_CLOEXEC, 300));
        // Before Linux 6.7 or so the iterator does not visit such a thread: an error, never another file.
        const bool registered = guard_->register_file(high.get(), policy()).has_value();
        EXPECT_EQ(registered ? EPERM : 0, outcome([&] { return ::ioctl(high.get(), FIOCLEX); }));
        EXPECT_EQ(registered ? 2U : 1U, registered_files());
    }).join();
    EXPECT_EQ(0, outcome([&] { return ::ioctl(other.get(), FIOCLEX); }));
}

TEST_F(GuardLifeTest, ManyFiles) {
    std::vector<UniqueFd> files;
    for (int i = 0; i < 200; i++) {
        files.push_back(reopened(owner(), O_RDWR));
        ASSERT_TRUE(ok(guard_->register_file(files.back().get(), policy())));
    }
    EXPECT_EQ(201U, registered_files());
    for (const UniqueFd& file : files)
        EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(file.get(), FIOCLEX); }));
    files.clear();
    EXPECT_TRUE(eventually([] { return registered_files() == 1; }));
}

/// Another process with a use and a registered file of its own, which it keeps until told to go on.
class OtherUser {
  public:
    explicit OtherUser(const FilePolicy& policy, bool release = true) {
        EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets_));
        pid_ = ::fork();
        if (pid_ == 0) ::_exit(run(policy, release));
        ::close(std::exchange(sockets_[1], -1));
        char byte = 0;
        EXPECT_EQ(1, ::read(sockets_[0], &byte, 1)) << "the other process did not get that far";
        EXPECT_EQ('r', byte);
    }
    OtherUser(const OtherUser&) = delete;
    OtherUser& operator=(const OtherUser&) = delete;
    ~OtherUser() {
        if (pid_ > 0) kill();
        ::close(sockets_[0]);
    }

    /// A copy of its guarded fd (the policy says forward: anyone).
    [[nodiscard]] UniqueFd get_file() const { return receive_fd(sockets_[0]); }
    /// Lets it release and exit; its status.
    int finish() {
        (void)!::write(sockets_[0], "x", 1);
        return wait();
    }
    void kill() {
        ::kill(pid_, SIGKILL);
        wait();
    }

  private:
    int run(FilePolicy policy, bool release) {
        auto guard = Guard::acquire();
        if (!guard) return 1;
        UniqueFd file(::memfd_create("other", MFD_CLOEXEC));
        if (::ftruncate(file.get(), 0x10000) != 0) return 2;
        policy.forward = Forward::Anyone;
        if (!guard->register_file(file.get(), policy)) return 3;
        (void)!::write(sockets_[1], "r", 1);
        if (send_fd(sockets_[1], file.get()) != 0) return 4;
        char byte = 0;
        (void)!::read(sockets_[1], &byte, 1);
        file.reset();
        return !release || guard->release() ? 0 : 5;
    }
    int wait() {
        int status = 0;
        ::waitpid(std::exchange(pid_, -1), &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : kWrong;
    }

    int sockets_[2] = {-1, -1};
    pid_t pid_ = -1;
};

TEST_F(GuardLifeTest, TwoProcessesShareTheGuard) {
    OtherUser other(policy());
    {
        const UniqueFd theirs = other.get_file();
        ASSERT_TRUE(theirs);
        EXPECT_EQ(2U, registered_files());
        EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(theirs.get(), FIOCLEX); }));
        EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), FIOCLEX); }));
    }
    EXPECT_EQ(0, other.finish());
    // One is gone, the other goes on.
    EXPECT_TRUE(attached());
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), FIOCLEX); }));
    EXPECT_TRUE(eventually([] { return registered_files() == 1; }));
}

TEST_F(GuardLifeTest, FirstUserGoesFirst) {
    OtherUser other(policy());
    const UniqueFd theirs = other.get_file();
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    EXPECT_TRUE(attached());
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(theirs.get(), FIOCLEX); }));
    // The last one finds its file still open here: the guard stays for it, and the next use takes it down.
    EXPECT_EQ(0, other.finish());
    EXPECT_TRUE(attached());
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(theirs.get(), FIOCLEX); }));
    auto next = Guard::acquire();
    ASSERT_TRUE(ok(next));
    guard_.emplace(std::move(*next));
}

TEST_F(GuardLifeTest, KilledUserLeavesNothing) {
    OtherUser other(policy());
    other.get_file().reset();  // a file in flight is open
    EXPECT_EQ(2U, registered_files());
    other.kill();
    EXPECT_TRUE(eventually([] { return registered_files() == 1; }));
}

TEST_F(GuardLifeTest, KilledUsersFileStaysGuarded) {
    UniqueFd theirs;
    {
        OtherUser other(policy());
        theirs = other.get_file();
        other.kill();
    }
    EXPECT_EQ(2U, registered_files());
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(theirs.get(), FIOCLEX); }));
    theirs.reset();
    EXPECT_TRUE(eventually([] { return registered_files() == 1; }));
}

TEST_F(GuardLifeTest, LastUserKilledAndTheNextCleansUp) {
    OtherUser other(policy());
    other.get_file().reset();
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    other.kill();
    EXPECT_TRUE(attached());  // nobody was there to take it down
    EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
    auto next = Guard::acquire();
    ASSERT_TRUE(ok(next));
    EXPECT_TRUE(ok(next->release()));
    EXPECT_FALSE(attached());
    guard_.reset();
}

TEST_F(GuardLifeTest, SandboxesOfKilledUsersAreSwept) {
    const auto sandboxes = [] { return entries("sandboxes"); };
    ASSERT_EQ(1U, sandboxes());
    // As if two users had been killed: the cgroup of one is gone, that of the other is empty.
    const TestCgroup empty(fmt::format("guard-empty-{}", ::getpid()));
    const UniqueFd map(::bpf_obj_get((pins() + "/map_sandboxes").c_str()));
    const uint32_t level = 1;
    const uint64_t gone_id = 0x7fff0000;
    const uint64_t empty_id = empty.id();
    ASSERT_EQ(0, ::bpf_map_update_elem(map.get(), &gone_id, &level, BPF_ANY));
    ASSERT_EQ(0, ::bpf_map_update_elem(map.get(), &empty_id, &level, BPF_ANY));
    ASSERT_EQ(3U, sandboxes());
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    EXPECT_EQ(0U, sandboxes());
    EXPECT_FALSE(attached());
}

TEST_F(GuardLifeTest, ChildsDestructorDoesNothing) {
    EXPECT_EQ(0, in_child([&] {
                  guard_.reset();
                  return 0;
              }));
    EXPECT_TRUE(attached());
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), FIOCLEX); }));
}

TEST_F(GuardLifeTest, AForkedChildDoesNotProlongAReleasedUse) {
    int gate[2];
    ASSERT_EQ(0, ::pipe2(gate, O_CLOEXEC));
    const pid_t child = ::fork();
    if (child == 0) {
        ::close(fd());
        ::close(gate[1]);
        char byte = 0;
        (void)!::read(gate[0], &byte, 1);
        ::_exit(0);
    }
    // It inherited the file as well, and may not have closed it yet.
    guarded_.reset();
    EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
    ASSERT_TRUE(ok(guard_->release()));
    auto next = Guard::acquire();
    ASSERT_TRUE(ok(next));
    ASSERT_TRUE(ok(next->release()));
    EXPECT_FALSE(attached());
    ::close(gate[0]);
    ::close(gate[1]);
    ::waitpid(child, nullptr, 0);
}

TEST_F(GuardLifeTest, NothingIsAttachedBetweenUses) {
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    for (const GuardHook& hook : kGuardHooks) {
        EXPECT_NE(0, ::access((pins() + "/link_" + hook.program).c_str(), F_OK)) << hook.program;
    }
    EXPECT_EQ(0, ::access((pins() + "/map_about").c_str(), F_OK));
    EXPECT_EQ(0U, registered_files());
    EXPECT_TRUE(ok(guard_->release()));  // twice is once
}

TEST_F(GuardLifeTest, KindsAreForgottenBetweenUses) {
    const auto filter = [] {
        const UniqueFd map(::bpf_obj_get((pins() + "/map_state").c_str()));
        postern_state state{};
        const uint32_t zero = 0;
        EXPECT_EQ(0, ::bpf_map_lookup_elem(map.get(), &zero, &state));
        return state.kinds.filter;
    };
    EXPECT_NE(0U, filter());
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    auto next = Guard::acquire();
    ASSERT_TRUE(ok(next));
    EXPECT_EQ(0U, filter());
    EXPECT_TRUE(ok(next->release()));
}

TEST_F(GuardLifeTest, RemainsOfAnInterruptedStartAreReplaced) {
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    for (const char* missing : {"map_about", "prog_on_access", "prog_on_own_file"}) {
        // about is pinned last: without it the set is not complete.
        ::unlink((pins() + "/map_about").c_str());
        ::unlink((pins() + "/" + missing).c_str());
        auto next = Guard::acquire();
        ASSERT_TRUE(ok(next)) << missing;
        guard_.emplace(std::move(*next));
        make_files(policy());
        EXPECT_TRUE(ok(prove_guard(fd(), policy())));
        guarded_.reset();
        ASSERT_TRUE(ok(guard_->release()));
    }
}

TEST_F(GuardLifeTest, HalfAttachedIsCompleted) {
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    {
        auto next = Guard::acquire();
        ASSERT_TRUE(ok(next));
        ASSERT_EQ(0, ::unlink((pins() + "/link_on_mmap").c_str()));
        guard_.emplace(std::move(*next));
        // Two uses in one process count as two.
        auto second = Guard::acquire();
        ASSERT_TRUE(ok(second));
        EXPECT_EQ(0, ::access((pins() + "/link_on_mmap").c_str(), F_OK));
    }
    make_files(policy());
    EXPECT_TRUE(ok(prove_guard(fd(), policy())));
}

TEST_F(GuardLifeTest, AMissingProgramWhileFilesAreGuardedIsAnError) {
    ASSERT_EQ(0, ::rename((pins() + "/link_on_mmap").c_str(), (pins() + "/kept").c_str()));
    const auto refused = Guard::acquire();
    ASSERT_FALSE(refused);
    EXPECT_NE(std::string::npos, refused.error().message.find("link_on_mmap")) << refused.error().message;
    EXPECT_EQ(0, ::rename((pins() + "/kept").c_str(), (pins() + "/link_on_mmap").c_str()));
}

TEST_F(GuardLifeTest, AnotherBuildIsReplacedOnlyWhenUnused) {
    const auto rewrite_stamp = [](uint64_t stamp) {
        const UniqueFd map(::bpf_obj_get((pins() + "/map_about").c_str()));
        const uint32_t zero = 0;
        postern_about about{POSTERN_GUARD_ABI, sizeof(postern_policy), stamp};
        EXPECT_EQ(0, ::bpf_map_update_elem(map.get(), &zero, &about, BPF_ANY));
    };
    const auto stamp = [] {
        const UniqueFd map(::bpf_obj_get((pins() + "/map_about").c_str()));
        const uint32_t zero = 0;
        postern_about about{};
        EXPECT_EQ(0, ::bpf_map_lookup_elem(map.get(), &zero, &about));
        return about.stamp;
    };
    rewrite_stamp(1);
    {
        auto sharing = Guard::acquire();
        ASSERT_TRUE(ok(sharing));
        EXPECT_EQ(1U, stamp());
        EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), FIOCLEX); }));
    }
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    auto next = Guard::acquire();
    ASSERT_TRUE(ok(next));
    EXPECT_EQ(guard_stamp(), stamp());
    guard_.emplace(std::move(*next));
}

TEST_F(GuardLifeTest, ManyUsersAtOnce) {
    std::vector<pid_t> children;
    for (int i = 0; i < 5; i++) {
        const pid_t child = ::fork();
        if (child == 0) {
            for (int round = 0; round < 4; round++) {
                auto guard = Guard::acquire();
                if (!guard) ::_exit(1);
                const UniqueFd owner_file(::memfd_create("many", MFD_CLOEXEC));
                if (::ftruncate(owner_file.get(), 0x10000) != 0) ::_exit(2);
                UniqueFd file = reopened(owner_file.get(), O_RDWR);
                if (!guard->register_file(file.get(), policy())) ::_exit(3);
                if (!prove_guard(file.get(), policy())) ::_exit(4);
                file.reset();
                if (!guard->release()) ::_exit(5);
            }
            ::_exit(0);
        }
        children.push_back(child);
    }
    // While they come and go, this use ends and begins as well.
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    auto next = Guard::acquire();
    ASSERT_TRUE(ok(next));
    guard_.emplace(std::move(*next));
    make_files(policy());
    EXPECT_TRUE(ok(prove_guard(fd(), policy())));
    for (const pid_t child : children) {
        int status = 0;
        ::waitpid(child, &status, 0);
        EXPECT_EQ(0, status);
    }
}

TEST_F(GuardLifeTest, KilledAtAnyMoment) {
    guarded_.reset();
    ASSERT_TRUE(ok(guard_->release()));
    std::random_device chance;
    for (int i = 0; i < 8; i++) {
        if (i % 4 == 3) {
            // Now and then there is nothing to take over: the next one dies while it loads.
            ::unlink((pins() + "/map_about").c_str());
        }
        const pid_t child = ::fork();
        if (child == 0) {
            while (true) {
                auto guard = Guard::acquire();
                if (!guard) ::_exit(1);
                const UniqueFd file(::memfd_create("killed", MFD_CLOEXEC));
                (void)guard->add_sandbox(0x7fff0000, 1);
                (void)guard->register_file(file.get(), policy());
            }
        }
        ::usleep(static_cast<useconds_t>(20000 + 260000 * i + chance() % 260000));
        ::kill(child, SIGKILL);
        int status = 0;
        ::waitpid(child, &status, 0);
        EXPECT_TRUE(WIFSIGNALED(status));
        auto next = Guard::acquire();
        ASSERT_TRUE(ok(next)) << i;
        guard_.emplace(std::move(*next));
        make_files(policy());
        EXPECT_TRUE(ok(prove_guard(fd(), policy())));
        guarded_.reset();
        EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
        ASSERT_TRUE(ok(guard_->release()));
        EXPECT_FALSE(attached());
    }
}

TEST_F(GuardLifeTest, AFolderOfSomebodyElseIsRefused) {
    const std::string folder = std::string(kBpffs) + "/postern";
    ASSERT_EQ(0, ::chown(folder.c_str(), 65534, 65534));
    EXPECT_FALSE(Guard::acquire());
    ASSERT_EQ(0, ::chown(folder.c_str(), 0, 0));
    ASSERT_EQ(0, ::chmod(folder.c_str(), 0777));
    EXPECT_FALSE(Guard::acquire());
    ASSERT_EQ(0, ::chmod(folder.c_str(), 0700));
    EXPECT_TRUE(ok(Guard::acquire()));
}

TEST(GuardPlace, NoBpffsIsAnErrorThatSaysSo) {
    const auto refused = Guard::acquire("/tmp");
    ASSERT_FALSE(refused);
    EXPECT_EQ("the guard: /tmp is not a bpffs; mount -t bpf bpf /tmp", refused.error().message);
    EXPECT_FALSE(Guard::acquire("/nowhere"));
    EXPECT_TRUE(ok(guard_supported()));
}

TEST(GuardPlace, NoRightsIsAnErrorThatSaysSo) {
    EXPECT_EQ(0, in_child([] {
                  if (::setresuid(65534, 65534, 65534) != 0) return 1;
                  const auto refused = guard_supported();
                  return !refused && refused.error().message.find("run postern as root") != std::string::npos
                             ? 0
                             : 2;
              }));
}

}  // namespace
}  // namespace postern::test
