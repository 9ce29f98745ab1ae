// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/weak/weak_guard.h"

#include <bpf/bpf.h>
#include <unistd.h>

#include <cerrno>

#include "weak.skel.h"

namespace postern::test {

void WeakGuard::Destroy::operator()(weak_bpf* object) const {
    weak_bpf__destroy(object);
}

Result<WeakGuard> WeakGuard::attach(const FilePolicy& policy) {
    POSTERN_ASSIGN(const postern_policy encoded, encode(policy));
    WeakGuard guard(weak_bpf__open_and_load());
    if (!guard.object_) {
        const int error = errno;
        return fail_errno(error, "the weak guard cannot be loaded");
    }
    const uint32_t zero = 0;
    guard.object_->bss->ruled_process = static_cast<uint32_t>(::getpid());
    if (::bpf_map_update_elem(bpf_map__fd(guard.object_->maps.policies), &zero, &encoded, BPF_ANY) != 0) {
        const int error = errno;
        return fail_errno(error, "the weak guard does not take its policy");
    }
    if (weak_bpf__attach(guard.object_.get()) != 0) {
        const int error = errno;
        return fail_errno(error, "the weak guard cannot be attached");
    }
    return guard;
}

}  // namespace postern::test
