// SPDX-License-Identifier: Apache-2.0
#include "tests/support/passing.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace postern::test {
namespace {

/// A message of one byte, without which a stream socket carries nothing, and room for one fd.
class Message {
  public:
    Message() {
        header_.msg_iov = &data_;
        header_.msg_iovlen = 1;
        header_.msg_control = control_;
        header_.msg_controllen = sizeof control_;
    }
    Message(const Message&) = delete;
    Message& operator=(const Message&) = delete;
    ~Message() = default;

    msghdr* get() { return &header_; }
    cmsghdr* control() { return CMSG_FIRSTHDR(&header_); }

  private:
    char byte_ = 0;
    iovec data_{&byte_, 1};
    alignas(cmsghdr) char control_[CMSG_SPACE(sizeof(int))] = {};
    msghdr header_{};
};

}  // namespace

int send_fd(int socket, int fd) {
    Message message;
    cmsghdr* rights = message.control();
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    return ::sendmsg(socket, message.get(), MSG_NOSIGNAL) == 1 ? 0 : -1;
}

UniqueFd receive_fd(int socket) {
    Message message;
    const ssize_t received = ::recvmsg(socket, message.get(), MSG_CMSG_CLOEXEC);
    if (received == 0) errno = ECONNRESET;  // no sender is no refusal
    if (received <= 0) return UniqueFd();
    const cmsghdr* rights = message.control();
    int fd = -1;
    if (rights == nullptr || rights->cmsg_type != SCM_RIGHTS || rights->cmsg_len != CMSG_LEN(sizeof fd)) {
        errno = EACCES;
        return UniqueFd();
    }
    std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    return UniqueFd(fd);
}

UniqueFd pidfd_of(pid_t process) {
    return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
}

UniqueFd fd_from(int pidfd, int fd) {
    return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, fd, 0)));
}

}  // namespace postern::test
