// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/passed_on_fds.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <unistd.h>

#include <cerrno>

#include "broker-core/passed_fds.h"

namespace postern {
namespace {

Status check_open(int fd) {
    const int flags = ::fcntl(fd, F_GETFD);
    // runc leaves a folder of the host's in a gap, and crun a file of its own.
    if (flags < 0 || (flags & FD_CLOEXEC) != 0)
        return fail("fd {} is not open, although it is to be passed on (--preserve-fds, LISTEN_FDS)", fd);
    return {};
}

}  // namespace

bool are_open(unsigned count) {
    for (int fd = kFirstFd; fd < kFirstFd + static_cast<int>(count); ++fd) {
        if (!check_open(fd)) return false;
    }
    return true;
}

Status pass_on_fds(unsigned count, std::vector<UniqueFd> more) {
    const int first = kFirstFd + static_cast<int>(count);
    const int end = first + static_cast<int>(more.size());
    for (int fd = kFirstFd; fd < first; ++fd) POSTERN_TRY(check_open(fd));
    // Out of the way first: one may stand where another is to go.
    for (UniqueFd& each : more) {
        UniqueFd moved(::fcntl(each.get(), F_DUPFD_CLOEXEC, end));
        if (!moved) {
            const int error = errno;
            return fail_errno(error, "duplicating fd {}", each.get());
        }
        each = std::move(moved);
    }
    for (int fd = first; fd < end; ++fd) {
        if (::dup2(more[static_cast<size_t>(fd - first)].get(), fd) < 0) {
            const int error = errno;
            return fail_errno(error, "placing fd {}", fd);
        }
    }
    if (::close_range(static_cast<unsigned>(end), ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
        const int error = errno;
        return fail_errno(error, "close_range");
    }
    for (int fd = kFirstFd; fd < end; ++fd) POSTERN_TRY(check_open(fd));
    return {};
}

}  // namespace postern
