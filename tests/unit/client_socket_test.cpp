// SPDX-License-Identifier: Apache-2.0
// postern_open_socket(): a grant over a unix socket, and what is refused of what comes there.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/unique_fd.h"
#include "postern.h"

namespace {

using postern::UniqueFd;
using testing::HasSubstr;

constexpr const char* kPassedManifest =
    R"({"postern":1,"grant":"0123456789abcdef","device":"0000:00:02.0","slice":1,
        "fds":{"manifest":3,"device":4,"dma.ring":5},
        "windows":[{"name":"w","region":0,"offset":0,"length":4096,"access":"rw","mmap":{"fd":"device","offset":0}}],
        "dma":[{"name":"ring","size":4096,"iova":65536,"access":"rw","fd":"dma.ring"}],"irqs":[],"ioctls":[]})";
constexpr const char* kPassedNames = "manifest:device:dma.ring";

std::string header(std::string_view names, uint32_t version = 1) {
    std::string text("postern\0", 8);
    const auto length = static_cast<uint32_t>(names.size());
    text.append(reinterpret_cast<const char*>(&version), sizeof version);
    text.append(reinterpret_cast<const char*>(&length), sizeof length);
    return text.append(names);
}

size_t open_fds() {
    const std::filesystem::directory_iterator fds("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(fds), end(fds)));
}

class Socket : public testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        std::array<int, 2> ends{};
        ASSERT_EQ(::socketpair(AF_UNIX, GetParam() | SOCK_CLOEXEC, 0, ends.data()), 0);
        sender_.reset(ends[0]);
        receiver_.reset(ends[1]);
        auto manifest = postern::sealed_memfd("manifest", kPassedManifest);
        ASSERT_TRUE(manifest);
        manifest_ = std::move(*manifest);
        device_.reset(::memfd_create("device", MFD_CLOEXEC));
        ring_.reset(::memfd_create("ring", MFD_CLOEXEC));
        ASSERT_EQ(::ftruncate(ring_.get(), 4096), 0);
    }

    void send(std::string text, const std::vector<int>& fds) {
        alignas(cmsghdr) std::array<char, CMSG_SPACE(16 * sizeof(int))> control{};
        iovec part = {text.data(), text.size()};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (!fds.empty()) {
            message.msg_control = control.data();
            message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
            cmsghdr* head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_SOCKET;
            head->cmsg_type = SCM_RIGHTS;
            head->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
            std::memcpy(CMSG_DATA(head), fds.data(), fds.size() * sizeof(int));
        }
        ASSERT_EQ(::sendmsg(sender_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    }

    std::vector<int> all() const { return {manifest_.get(), device_.get(), ring_.get()}; }

    void expect_refused(const std::string& words) {
        sender_.reset();
        const size_t before = open_fds();
        std::array<char, 512> error{};
        EXPECT_EQ(postern_open_socket(receiver_.get(), error.data(), error.size()), nullptr);
        EXPECT_THAT(error.data(), HasSubstr(words));
        EXPECT_EQ(open_fds(), before) << "fds of a refused grant stay open";
    }

    UniqueFd sender_, receiver_, manifest_, device_, ring_;
};

TEST_P(Socket, GivesTheGrantWithTheNumbersThatArrived) {
    send(header(kPassedNames), all());
    std::array<char, 512> error{};
    const size_t before = open_fds();
    postern_grant* grant = postern_open_socket(receiver_.get(), error.data(), error.size());
    ASSERT_NE(grant, nullptr) << error.data();
    EXPECT_EQ(open_fds(), before + 3);
    EXPECT_STREQ(grant->id, "0123456789abcdef");
    EXPECT_EQ(grant->slice, 1);
    EXPECT_EQ(grant->device_fd, postern_fd(grant, "device"));
    EXPECT_EQ(postern_get_window(grant, "w")->mmap_fd, grant->device_fd);
    EXPECT_EQ(::fcntl(grant->device_fd, F_GETFD), FD_CLOEXEC);
    auto* mine = static_cast<char*>(postern_map_dma(postern_get_dma(grant, "ring")));
    ASSERT_NE(mine, nullptr);
    ASSERT_EQ(::pwrite(ring_.get(), "x", 1, 7), 1);
    EXPECT_EQ(mine[7], 'x') << "another memory than the sender's";
    postern_unmap(mine, 4096);
    postern_close(grant);
    EXPECT_EQ(open_fds(), before);
}

TEST_P(Socket, OneAfterTheOther) {
    send(header(kPassedNames), all());
    send(header(kPassedNames), all());
    for (int i = 0; i < 2; ++i) {
        std::array<char, 512> error{};
        postern_grant* grant = postern_open_socket(receiver_.get(), error.data(), error.size());
        ASSERT_NE(grant, nullptr) << error.data();
        postern_close(grant);
    }
}

TEST_P(Socket, FewerFdsThanNamesAreTheGuardsWord) {
    send(header(kPassedNames), {manifest_.get(), device_.get()});
    expect_refused("2 of the grant's 3 fds arrived");
}

TEST_P(Socket, MoreFdsThanNamesAreRefused) {
    send(header(kPassedNames), {manifest_.get(), device_.get(), ring_.get(), ring_.get()});
    expect_refused("4 of the grant's 3 fds");
}

TEST_P(Socket, AnotherVersionIsRefused) {
    send(header(kPassedNames, 2), all());
    expect_refused("version 2");
}

TEST_P(Socket, SomethingElseIsRefused) {
    send("GET / HTTP/1.1\r\n\r\n", all());
    expect_refused("no grant");
}

TEST_P(Socket, ACutMessageIsRefused) {
    send(header(kPassedNames).substr(0, 20), all());
    expect_refused(GetParam() == SOCK_STREAM ? "ended" : "cut off");
}

TEST_P(Socket, TooManyNamesAreRefused) {
    send(header(kPassedNames).replace(12, 4, "\xff\xff\xff\x7f"), all());
    expect_refused("bytes of names");
}

TEST_P(Socket, NoManifestIsRefused) {
    send(header("device:dma.ring"), {device_.get(), ring_.get()});
    expect_refused("no \"manifest\"");
}

TEST_P(Socket, TheEndIsToldApart) {
    expect_refused("before a grant came");
}

INSTANTIATE_TEST_SUITE_P(Client, Socket, testing::Values(SOCK_SEQPACKET, SOCK_STREAM));

}  // namespace
