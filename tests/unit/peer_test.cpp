// SPDX-License-Identifier: Apache-2.0
#include "broker-core/peer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <vector>

#include "broker-core/file.h"

namespace postern {
namespace {

TEST(Peer, IsWhoMadeTheSocket) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    const UniqueFd here(ends[0]);
    const UniqueFd there(ends[1]);
    const auto peer = read_peer(here.get());
    ASSERT_TRUE(peer) << peer.error().message;
    EXPECT_EQ(peer->pid, ::getpid());
    EXPECT_EQ(peer->caller.uid, ::geteuid());
    EXPECT_EQ(peer->caller.gid, ::getegid());
    std::vector<gid_t> groups(static_cast<size_t>(::getgroups(0, nullptr)));
    ASSERT_EQ(::getgroups(static_cast<int>(groups.size()), groups.data()), static_cast<int>(groups.size()));
    EXPECT_THAT(peer->caller.groups, testing::UnorderedElementsAreArray(groups));
    EXPECT_FALSE(read_peer(STDIN_FILENO + 1000));
}

TEST(Peer, APidfdTellsWhoseItIs) {
    const auto own = pidfd_of(::getpid());
    ASSERT_TRUE(own) << own.error().message;
    EXPECT_EQ(pid_of(own->get()).value(), ::getpid());
    EXPECT_FALSE(has_ended(own->get()));
    const auto none = pidfd_of(1 << 30);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().errnum, ESRCH);
}

TEST(Peer, APidfdOutlivesItsProcess) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::pause();
        ::_exit(0);
    }
    const auto pidfd = pidfd_of(child);
    ASSERT_TRUE(pidfd);
    EXPECT_EQ(pid_of(pidfd->get()).value(), child);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    EXPECT_TRUE(has_ended(pidfd->get()));
    EXPECT_EQ(pid_of(pidfd->get()).value(), 0);
    EXPECT_EQ(command_name(child), "");
}

TEST(Peer, OtherFilesAreNoPidfds) {
    const auto file = sealed_memfd("\nPid:\t1", "\nPid:\t1\n");
    ASSERT_TRUE(file);
    EXPECT_FALSE(pid_of(file->get()));
    EXPECT_FALSE(pid_of(-1));
    const UniqueFd folder(::open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(folder);
    EXPECT_FALSE(pid_of(folder.get()));
}

TEST(Peer, ANameIsForPeople) {
    std::array<char, 16> before{};
    ASSERT_EQ(::prctl(PR_GET_NAME, before.data()), 0);
    ASSERT_EQ(::prctl(PR_SET_NAME, "\033[31m\nroot"), 0);
    EXPECT_EQ(command_name(::getpid()), "?[31m?root");
    ASSERT_EQ(::prctl(PR_SET_NAME, before.data()), 0);
}

}  // namespace
}  // namespace postern
