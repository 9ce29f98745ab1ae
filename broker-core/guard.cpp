// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard.h"

#include <unistd.h>

#include <algorithm>

#include "broker-core/guard_cgroup.h"
#include "broker-core/scope_guard.h"

namespace postern {
namespace {

/// Removes the sandboxes that users left behind who did not get to release(): those whose cgroup is gone and,
/// if nobody else uses the guard (so nobody is about to fill them), those that are empty.
Status sweep_sandboxes(GuardPins& pins, bool alone) {
    POSTERN_ASSIGN(const std::vector<uint64_t> found, pins.sandboxes());
    for (const uint64_t id : found) {
        const CgroupState state = cgroup_state(id);
        const bool over = state == CgroupState::Gone || (alone && state == CgroupState::Empty);
        if (over) POSTERN_TRY(pins.remove_sandbox(id));
    }
    return {};
}

/// For the only user: detaches unless a file or a sandbox with somebody in it is still there.
Status detach_if_unused(GuardPins& pins) {
    POSTERN_TRY(sweep_sandboxes(pins, true));
    POSTERN_ASSIGN(const bool any_file, pins.any_file());
    POSTERN_ASSIGN(const std::vector<uint64_t> sandboxes, pins.sandboxes());
    return any_file || !sandboxes.empty() ? Status() : pins.detach();
}

}  // namespace

Result<Guard> Guard::acquire(const std::string& bpffs) {
    POSTERN_TRY(guard_supported(bpffs));
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(GuardUse use, GuardUse::begin());
    POSTERN_ASSIGN(const bool alone, use.is_only_one());
    POSTERN_ASSIGN(GuardPins pins, GuardPins::open(bpffs, alone));
    if (alone) POSTERN_TRY(sweep_sandboxes(pins, alone));
    // Before any file is registered: a file that closes unseen would leave its address behind.
    POSTERN_TRY(pins.attach());
    return Guard(std::move(pins), std::move(use), ::getpid());
}

Guard::~Guard() {
    // Best effort: whoever wants to know calls release().
    if (use_ && owner_ == ::getpid()) (void)release();
}

Status Guard::add_sandbox(uint64_t cgroup_id, uint32_t level) {
    if (level == 0 || level > POSTERN_MAX_CGROUP_LEVEL) {
        return fail(
            "the guard: a sandbox's cgroup at level {}; it looks at levels 1 to {}, start postern less deep",
            level, POSTERN_MAX_CGROUP_LEVEL);
    }
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    Status added = pins_.add_sandbox(cgroup_id, level);
    if (!added && added.error().errnum == E2BIG) {
        POSTERN_TRY(sweep_sandboxes(pins_, false));
        added = pins_.add_sandbox(cgroup_id, level);
    }
    POSTERN_TRY(std::move(added));
    my_sandboxes_.push_back(cgroup_id);
    return {};
}

Status Guard::remove_sandbox(uint64_t cgroup_id) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_TRY(pins_.remove_sandbox(cgroup_id));
    std::erase(my_sandboxes_, cgroup_id);
    return {};
}

Status Guard::request(int fd, const postern_pending& request, const char* what) {
    if (fd < 0) return fail("the guard: fd {} is not open", fd);
    postern_pending asked = request;
    asked.fd = static_cast<uint32_t>(fd);
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(const postern_pending answer, pins_.run(asked));
    if (answer.error == EEXIST)
        return fail("the guard: cannot {} fd {}: this open file has a policy already", what, fd);
    if (answer.error != 0) {
        return fail_errno(static_cast<int>(answer.error), "the guard: cannot {} fd {}", what, fd);
    }
    if (answer.seen != 1) {
        return fail("the guard: cannot {} fd {}: the kernel found {} open files there", what, fd,
                    answer.seen);
    }
    return {};
}

Status Guard::register_file(int fd, const FilePolicy& policy) {
    postern_pending wanted{};
    wanted.action = POSTERN_PENDING_REGISTER;
    POSTERN_ASSIGN(wanted.policy, encode(policy));
    return request(fd, wanted, "register");
}

Status Guard::learn(int fd) {
    postern_pending wanted{};
    wanted.action = POSTERN_PENDING_LEARN;
    return request(fd, wanted, "learn the kind of");
}

Status Guard::release() {
    if (!use_) return {};
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    // Whatever fails from here on: the use ends, and the next one cleans up.
    const ScopeGuard end_use([this] {
        use_->end();
        use_.reset();
    });
    for (const uint64_t id : my_sandboxes_) POSTERN_TRY(pins_.remove_sandbox(id));
    my_sandboxes_.clear();
    POSTERN_ASSIGN(const bool alone, use_->is_only_one());
    return alone ? detach_if_unused(pins_) : Status();
}

}  // namespace postern
