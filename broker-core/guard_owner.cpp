// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_owner.h"

#include <bpf/bpf.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "broker-core/guard_pins.h"
#include "broker-core/guard_support.h"

namespace postern {

uint64_t owner_token() {
    static uint64_t token = 0;
    static pid_t whose = 0;
    if (whose != ::getpid()) {
        // Random so that it is nobody else's; that it could be known matters not, for only the guard's users
        // can write it anywhere.
        while (::getrandom(&token, sizeof token, 0) != sizeof token || token == 0) {
        }
        whose = ::getpid();
    }
    return token;
}

Result<ChildMark> ChildMark::make(uint64_t token, uint32_t flags) {
    ChildMark mark;
    mark.token_ = token;
    mark.flags_ = flags;
    POSTERN_ASSIGN(mark.owners_, GuardPins::owners(kBpffs));
    return mark;
}

Result<ChildMark> ChildMark::program() {
    return make(owner_token(), POSTERN_OWNER_PROGRAM);
}

Result<ChildMark> ChildMark::proof() {
    return make(0, POSTERN_OWNER_PROOF);
}

bool ChildMark::apply() const noexcept {
    if (!owners_) return true;
    const auto self = static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0));
    if (self < 0) return false;
    postern_owner owner{};
    owner.token = token_;
    owner.flags = flags_;
    const bool done = ::bpf_map_update_elem(owners_.get(), &self, &owner, BPF_ANY) == 0;
    const int error = errno;
    ::close(self);
    errno = error;
    return done;
}

}  // namespace postern
