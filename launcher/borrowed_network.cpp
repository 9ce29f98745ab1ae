// SPDX-License-Identifier: Apache-2.0
#include "launcher/borrowed_network.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>

namespace postern {

BorrowedNetwork::~BorrowedNetwork() {
    // It cannot fail: the launcher had the right to leave it.
    if (own_ && ::setns(own_.get(), CLONE_NEWNET) != 0) std::abort();
}

Status BorrowedNetwork::join(const std::string& path) {
    if (path.empty()) return {};
    const UniqueFd network(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    UniqueFd own(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!network || !own || ::setns(network.get(), CLONE_NEWNET) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "joining the network namespace {}{}", path,
                          errnum == EPERM ? " takes CAP_SYS_ADMIN where it was made; run as root" : "");
    }
    own_ = std::move(own);
    return {};
}

}  // namespace postern
