// SPDX-License-Identifier: Apache-2.0
// How an fd gets from one process to another: over a unix socket, or taken by pidfd_getfd(2).
#pragma once

#include <sys/types.h>

#include "broker-core/unique_fd.h"

namespace postern::test {

/// Sends `fd` by SCM_RIGHTS: 0, or -1 with errno.
[[nodiscard]] int send_fd(int socket, int fd);

/// The fd that came; empty with errno. A receiver that a security hook refuses gets the message without the
/// fd, and that is EACCES here.
[[nodiscard]] UniqueFd receive_fd(int socket);

/// pidfd_open(2); empty with errno.
[[nodiscard]] UniqueFd pidfd_of(pid_t process);

/// pidfd_getfd(2): the process's fd of that number; empty with errno.
[[nodiscard]] UniqueFd fd_from(int pidfd, int fd);

}  // namespace postern::test
