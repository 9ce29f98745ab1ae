// SPDX-License-Identifier: Apache-2.0
#include "launcher/tcp_filter.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>

#include "launcher/seccomp_filter.h"

namespace postern {
namespace {

/// int arguments: the upper half of the register is anything.
constexpr std::uint64_t kInt = 0xffffffff;
/// AF_SMC, which the C library does not name.
constexpr std::uint64_t kSmc = 43;

SeccompRule refuse(const char* name, int number, int errnum, unsigned argument, std::uint64_t mask,
                   std::uint64_t value) {
    return {name,
            number,
            {SeccompAction::Kind::Errno, static_cast<std::uint16_t>(errnum)},
            {{argument, SeccompArgument::Op::MaskedEqual, mask, value}}};
}

}  // namespace

Result<std::vector<sock_filter>> tcp_filter() {
    SeccompProfile profile;
    profile.default_action = {SeccompAction::Kind::Allow};
    profile.rules = {
        refuse("sendto", SYS_sendto, EOPNOTSUPP, 3, MSG_FASTOPEN, MSG_FASTOPEN),
        refuse("sendmsg", SYS_sendmsg, EOPNOTSUPP, 2, MSG_FASTOPEN, MSG_FASTOPEN),
        refuse("sendmmsg", SYS_sendmmsg, EOPNOTSUPP, 3, MSG_FASTOPEN, MSG_FASTOPEN),
        refuse("socket", SYS_socket, EPROTONOSUPPORT, 2, kInt, IPPROTO_MPTCP),
        refuse("socket", SYS_socket, EAFNOSUPPORT, 0, kInt, kSmc),
        // A ring makes sockets and sends without a system call.
        {"io_uring_setup", SYS_io_uring_setup, {SeccompAction::Kind::Errno, ENOSYS}, {}},
    };
    return compile_seccomp_filter(profile);
}

}  // namespace postern
