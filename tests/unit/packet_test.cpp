// SPDX-License-Identifier: Apache-2.0
#include "broker-core/packet.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "broker-core/file.h"

namespace postern {
namespace {

size_t open_files() {
    return names_in("/proc/self/fd").size();
}

/// Both ends of a connection.
struct Pair {
    Pair() {
        std::array<int, 2> ends{};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
        here.reset(ends[0]);
        there.reset(ends[1]);
    }
    UniqueFd here;
    UniqueFd there;
};

class Folder {
  public:
    Folder() {
        std::string name = "/tmp/postern-packet-XXXXXX";
        EXPECT_NE(::mkdtemp(name.data()), nullptr);
        path = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
};

TEST(Packet, CarriesTextAndFiles) {
    const Pair pair;
    const auto file = sealed_memfd("packet", "inside");
    ASSERT_TRUE(file);
    const std::vector<int> fds(kMaxPacketFds, file->get());
    const size_t before = open_files();
    {
        const std::string text(65536, 'x');
        ASSERT_TRUE(send_packet(pair.here.get(), text, fds));
        const auto packet = receive_packet(pair.there.get(), text.size(), fds.size());
        ASSERT_TRUE(packet) << packet.error().message;
        EXPECT_EQ(packet->text, text);
        EXPECT_FALSE(packet->end);
        EXPECT_FALSE(packet->sender);
        ASSERT_EQ(packet->fds.size(), fds.size());
        EXPECT_EQ(read_to_end(packet->fds.back().get(), 100).value(), "inside");
        EXPECT_EQ(::fcntl(packet->fds.front().get(), F_GETFD), FD_CLOEXEC);
    }
    EXPECT_EQ(open_files(), before);
}

TEST(Packet, TellsWhoSentIt) {
    const Pair pair;
    const int on = 1;
    ASSERT_EQ(::setsockopt(pair.there.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    const int fd = pair.here.get();
    ASSERT_TRUE(send_packet(pair.here.get(), "hello", {&fd, 1}));
    const auto packet = receive_packet(pair.there.get(), 10, 1);
    ASSERT_TRUE(packet);
    ASSERT_TRUE(packet->sender);
    EXPECT_EQ(packet->sender->pid, ::getpid());
    EXPECT_EQ(packet->sender->uid, ::getuid());
    EXPECT_EQ(packet->fds.size(), 1U);
}

TEST(Packet, ThatIsTooLongIsRefusedAndLeaksNothing) {
    const Pair pair;
    const std::vector<int> fds(10, pair.here.get());
    const size_t before = open_files();
    ASSERT_TRUE(send_packet(pair.here.get(), "0123456789", fds));
    const auto refused = receive_packet(pair.there.get(), 9, 10);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errnum, EMSGSIZE);
    EXPECT_THAT(refused.error().message, testing::HasSubstr("9 bytes"));
    EXPECT_EQ(open_files(), before);
    // The control, and that the next one is whole.
    ASSERT_TRUE(send_packet(pair.here.get(), "0123456789", fds));
    EXPECT_TRUE(receive_packet(pair.there.get(), 10, 10));
    EXPECT_EQ(open_files(), before);
}

TEST(Packet, WithTooManyFilesIsRefusedAndLeaksNothing) {
    const Pair pair;
    const size_t before = open_files();
    for (const size_t count : {size_t{11}, kMaxPacketFds}) {
        const std::vector<int> fds(count, pair.here.get());
        ASSERT_TRUE(send_packet(pair.here.get(), "many", fds));
        const auto refused = receive_packet(pair.there.get(), 10, 10);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().errnum, EMSGSIZE);
        EXPECT_EQ(open_files(), before);
    }
    const std::vector<int> more(kMaxPacketFds + 1, pair.here.get());
    EXPECT_EQ(send_packet(pair.here.get(), "more", more).error().errnum, EMSGSIZE);
    const std::vector<int> fds(10, pair.here.get());
    ASSERT_TRUE(send_packet(pair.here.get(), "ten", fds));
    EXPECT_TRUE(receive_packet(pair.there.get(), 10, 10));
}

TEST(Packet, WhoseFilesFindNoRoomIsRefusedAndLeaksNothing) {
    const Pair pair;
    const std::vector<int> fds(20, pair.here.get());
    const size_t before = open_files();
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    ASSERT_TRUE(send_packet(pair.here.get(), "room", fds));
    const rlimit small{before + 8, limit.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &small), 0);
    const auto refused = receive_packet(pair.there.get(), 10, 20);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errnum, EMSGSIZE);
    EXPECT_THAT(refused.error().message, testing::HasSubstr("RLIMIT_NOFILE"));
    EXPECT_EQ(open_files(), before);
    ASSERT_TRUE(send_packet(pair.here.get(), "room", fds));
    EXPECT_TRUE(receive_packet(pair.there.get(), 10, 20));
}

TEST(Packet, NothingThereAndNoRoomAreEagain) {
    const Pair pair;
    EXPECT_EQ(receive_packet(pair.here.get(), 10, 0, MSG_DONTWAIT).error().errnum, EAGAIN);
    Status sent;
    for (int i = 0; sent && i < 100000; ++i) sent = send_packet(pair.here.get(), "flood", {}, MSG_DONTWAIT);
    ASSERT_FALSE(sent);
    EXPECT_EQ(sent.error().errnum, EAGAIN);
}

TEST(Packet, TheEndComesBehindWhatWasSent) {
    Pair pair;
    // Unread by the other side, so that its end is a reset.
    ASSERT_TRUE(send_packet(pair.here.get(), "unread", {}));
    ASSERT_TRUE(send_packet(pair.there.get(), "last", {}));
    pair.there.reset();
    const auto last = receive_packet(pair.here.get(), 10, 0);
    ASSERT_TRUE(last) << last.error().message;
    EXPECT_EQ(last->text, "last");
    const auto end = receive_packet(pair.here.get(), 10, 0);
    ASSERT_TRUE(end) << end.error().message;
    EXPECT_TRUE(end->end);
    EXPECT_EQ(send_packet(pair.here.get(), "late", {}).error().errnum, EPIPE);
}

TEST(Packet, AnEmptyOneIsNotSentAndReadAsTheEnd) {
    const Pair pair;
    EXPECT_EQ(send_packet(pair.here.get(), "", {}).error().errnum, EINVAL);
    ASSERT_EQ(::send(pair.here.get(), "", 0, 0), 0);
    const auto end = receive_packet(pair.there.get(), 10, 0);
    ASSERT_TRUE(end);
    EXPECT_TRUE(end->end);
}

TEST(PacketSocket, ListensWithTheModeAndIsConnectedTo) {
    const Folder folder;
    const std::string path = folder.path + "/socket";
    EXPECT_EQ(connect_to(path).error().errnum, ENOENT);
    const mode_t mask = ::umask(0);
    auto narrow = listen_at(path, 0600);
    ::umask(mask);
    ASSERT_TRUE(narrow) << narrow.error().message;
    struct stat found {};
    ASSERT_EQ(::stat(path.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777U, 0600U);
    EXPECT_TRUE(connect_to(path));
    EXPECT_EQ(listen_at(path, 0600).error().errnum, EADDRINUSE);
    narrow->reset();
    EXPECT_EQ(connect_to(path).error().errnum, ECONNREFUSED);
    ASSERT_EQ(::unlink(path.c_str()), 0);
    ::umask(077);
    const auto wide = listen_at(path, 0666);
    ::umask(mask);
    ASSERT_TRUE(wide);
    ASSERT_EQ(::stat(path.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777U, 0666U);
}

TEST(PacketSocket, ALongPathIsRefusedInWords) {
    const Folder folder;
    const std::string longest = folder.path + "/" + std::string(107 - folder.path.size() - 1, 'x');
    const auto listener = listen_at(longest, 0600);
    ASSERT_TRUE(listener) << listener.error().message;
    EXPECT_TRUE(connect_to(longest));
    for (const auto& refused : {listen_at(longest + "x", 0600), connect_to(longest + "x")}) {
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().errnum, ENAMETOOLONG);
        EXPECT_THAT(refused.error().message, testing::HasSubstr("108 bytes, and 1 to 107"));
    }
}

TEST(Packet, WithoutRoomForFilesNoneBecomesAnFd) {
    const Pair pair;
    const int on = 1;
    ASSERT_EQ(::setsockopt(pair.there.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    const auto file = sealed_memfd("packet", "inside");
    ASSERT_TRUE(file);
    const size_t before = open_files();
    for (const size_t count : {size_t{1}, size_t{4}, kMaxPacketFds}) {
        ASSERT_TRUE(send_packet(pair.here.get(), "text", std::vector<int>(count, file->get())));
        const auto packet = receive_packet(pair.there.get(), 100, 0);
        ASSERT_FALSE(packet);
        EXPECT_EQ(packet.error().errnum, EMSGSIZE);
        EXPECT_THAT(packet.error().message, testing::HasSubstr("it has fds"));
        EXPECT_EQ(open_files(), before);
    }
    // The control, and who sent it is told all the same.
    ASSERT_TRUE(send_packet(pair.here.get(), "text", {}));
    const auto packet = receive_packet(pair.there.get(), 100, 0);
    ASSERT_TRUE(packet) << packet.error().message;
    EXPECT_EQ(packet->text, "text");
    ASSERT_TRUE(packet->sender);
    EXPECT_EQ(packet->sender->pid, ::getpid());
}

}  // namespace
}  // namespace postern
