// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern::cost {

struct Pipe {
    UniqueFd reader;
    UniqueFd writer;

    [[nodiscard]] static Result<Pipe> make() {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) == 0) return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
        const int error = errno;
        return fail_errno(error, "pipe");
    }
};

/// Two connected unix sockets that keep messages apart.
struct SocketPair {
    UniqueFd here;
    UniqueFd there;

    [[nodiscard]] static Result<SocketPair> make() {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0)
            return SocketPair{UniqueFd(ends[0]), UniqueFd(ends[1])};
        const int error = errno;
        return fail_errno(error, "socketpair");
    }
};

}  // namespace postern::cost
