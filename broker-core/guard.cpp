// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard.h"

#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <ctime>

#include "broker-core/guard_cgroup.h"
#include "broker-core/guard_owner.h"
#include "broker-core/scope_guard.h"

namespace postern {
namespace {

constexpr size_t kPageSize = POSTERN_PAGE_SIZE;
/// Linux 6.10; Debian 12's headers are older.
constexpr long kSysMseal = 462;

bool rules_arguments(const FilePolicy& policy) {
    return std::any_of(policy.ioctls.begin(), policy.ioctls.end(),
                       [](const GuardIoctl& each) { return !each.alternatives.empty(); });
}

/// Removes the sandboxes that users left behind who did not get to release(): those whose cgroup is gone and,
/// if nobody else uses the guard (so nobody is about to fill them), those that are empty. What they share of
/// a file that is still there is for end_shares() to find: somebody who left the cgroup may have it mapped.
Status sweep_sandboxes(GuardPins& pins, bool alone) {
    POSTERN_TRY(pins.sweep_shares());
    POSTERN_ASSIGN(const std::vector<uint64_t> found, pins.sandboxes());
    for (const uint64_t id : found) {
        const CgroupState state = cgroup_state(id);
        const bool over = state == CgroupState::Gone || (alone && state == CgroupState::Empty);
        if (over) POSTERN_TRY(pins.forget_sandbox(id));
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

/// Asks for the mapping at `address`, which is one of the file behind `fd`.
postern_pending look_at(int fd, const void* address) {
    postern_pending look{};
    look.action = POSTERN_PENDING_LOOK;
    look.fd = static_cast<uint32_t>(fd);
    look.address = reinterpret_cast<uint64_t>(address);
    return look;
}

Result<uint64_t> flags_of(GuardPins& pins, int fd, const void* address) {
    POSTERN_ASSIGN(const postern_pending answer, pins.run(look_at(fd, address)));
    if (answer.error != 0 || answer.seen != 1) {
        return fail_errno(static_cast<int>(answer.error),
                          "the guard: cannot look at a mapping of this process");
    }
    return answer.value;
}

/// Tells the guard how this kernel marks sealed memory, which no header says: one bit of vm_flags that
/// mseal(2) sets (63 on Linux 6.12, 42 on 7.3). Costs this process one page of address space for good.
Status learn_sealing(GuardPins& pins) {
    POSTERN_ASSIGN(const postern_state known, pins.state());
    if (known.memfd_f_op != 0) return {};
    const UniqueFd memfd(::memfd_create("postern-seal", MFD_CLOEXEC));
    void* page = memfd && ::ftruncate(memfd.get(), kPageSize) == 0
                     ? ::mmap(nullptr, kPageSize, PROT_READ, MAP_SHARED, memfd.get(), 0)
                     : MAP_FAILED;
    if (page == MAP_FAILED) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot make a page to seal");
    }
    POSTERN_ASSIGN(const uint64_t before, flags_of(pins, memfd.get(), page));
    uint64_t after = before;
    if (::syscall(kSysMseal, page, kPageSize, 0UL) == 0) {
        POSTERN_ASSIGN(after, flags_of(pins, memfd.get(), page));
    } else {
        ::munmap(page, kPageSize);  // ENOSYS before Linux 6.10
    }
    const uint64_t changed = before ^ after;
    postern_pending sealing{};
    sealing.action = POSTERN_PENDING_SEALING;
    sealing.fd = static_cast<uint32_t>(memfd.get());
    sealing.value = std::has_single_bit(changed) && (after & changed) != 0 ? changed : 0;
    POSTERN_ASSIGN(const postern_pending answer, pins.run(sealing));
    if (answer.seen != 1) return fail("the guard: the kernel did not find the file of a page to seal");
    return {};
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
    POSTERN_TRY(learn_sealing(pins));
    // Any file will do. Known as an owner, it is nothing that somebody in a sandbox may look into.
    POSTERN_TRY(pins.ask(POSTERN_PENDING_OWN, pins.rings(), owner_token()));
    POSTERN_TRY(GuardListener::sweep(pins));
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

Status Guard::check(const postern_pending& answer, int fd, const char* what) {
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

Status Guard::request(int fd, const postern_pending& request, const char* what) {
    if (fd < 0) return fail("the guard: fd {} is not open", fd);
    postern_pending asked = request;
    asked.fd = static_cast<uint32_t>(fd);
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(const postern_pending answer, pins_.run(asked));
    return check(answer, fd, what);
}

Result<postern_policy> Guard::sign(const FilePolicy& policy) const {
    POSTERN_ASSIGN(postern_policy signed_policy, encode(policy));
    signed_policy.launcher = static_cast<uint32_t>(::getpid());
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    signed_policy.since =
        static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
    if (rules_arguments(policy) && !can_rule_arguments()) return fail("the guard: {}", kNoSealing);
    return signed_policy;
}

Status Guard::register_file(int fd, const FilePolicy& policy) {
    postern_pending wanted{};
    wanted.action = POSTERN_PENDING_REGISTER;
    POSTERN_ASSIGN(wanted.policy, sign(policy));
    return request(fd, wanted, "register");
}

Status Guard::share_file(int fd, const FilePolicy& policy) {
    if (policy.sandbox_cgroup_id == 0) {
        return fail(
            "the guard: grant {}: a file that cannot be opened twice is shared by its owner with a sandbox's "
            "cgroup, "
            "and there is none; give the client a sandbox, or use a backend that opens the device twice",
            policy.grant);
    }
    if (policy.forward == Forward::Anyone) {
        return fail(
            "the guard: grant {}: forward is \"anyone\", and what cannot be opened twice is of use in its "
            "sandbox "
            "only; say \"sandbox\", or use a backend that opens the device twice",
            policy.grant);
    }
    postern_pending share{};
    share.action = POSTERN_PENDING_SHARE;
    POSTERN_ASSIGN(share.policy, sign(policy));
    postern_pending shared{};
    shared.action = POSTERN_PENDING_REGISTER;
    shared.policy.flags = POSTERN_POLICY_SHARED | (policy.exclusive ? POSTERN_POLICY_EXCLUSIVE : 0);
    shared.policy.owner = owner_token();
    shared.policy.launcher = share.policy.launcher;
    shared.policy.since = share.policy.since;
    std::copy(std::begin(share.policy.device), std::end(share.policy.device), shared.policy.device);
    for (postern_ioctl_entry& unused : shared.policy.ioctls) unused.cmd = ~0U;
    if (::getrandom(&shared.policy.serial, sizeof shared.policy.serial, 0) != sizeof shared.policy.serial) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot name the shared fd {}", fd);
    }

    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    share.fd = shared.fd = static_cast<uint32_t>(fd);
    POSTERN_ASSIGN(const postern_pending registered, pins_.run(shared));
    if (registered.error != EEXIST) POSTERN_TRY(check(registered, fd, "share"));
    POSTERN_ASSIGN(const postern_pending answer, pins_.run(share));
    if (answer.error != EEXIST) return check(answer, fd, "share");
    POSTERN_ASSIGN(const auto all, pins_.files());
    const bool same = std::any_of(all.begin(), all.end(), [&](const auto& each) {
        return each.first.file == answer.file && each.first.share == policy.sandbox_cgroup_id &&
               policy.grant == each.second.grant && allows_the_same(each.second, share.policy);
    });
    if (same) return {};
    // Nobody sees whether its client has closed it: what that gave up must not be its again by another file.
    return fail(
        "the guard: cannot share fd {}: the sandbox has a policy of another grant on it, or one whose client "
        "has given up some of it; end that grant first",
        fd);
}

Status Guard::claim(int fd) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    Status claimed = pins_.ask(POSTERN_PENDING_CLAIM, fd, owner_token());
    if (!claimed && claimed.error().errnum == EINVAL) return {};
    return claimed;
}

Result<bool> Guard::end_shares(const std::string& grant) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(const auto all, pins_.files());
    bool mapped = false;
    for (const auto& [key, policy] : all) {
        if (grant != policy.grant || key.share == 0) continue;
        // First: what is not mapped when they are looked for must not be mapped after.
        POSTERN_TRY(pins_.revoke(key, grant));
        POSTERN_ASSIGN(const bool found, pins_.is_mapped(key, policy));
        mapped = mapped || found;
    }
    if (mapped) return true;
    for (const auto& [key, policy] : all) {
        if (grant == policy.grant && key.share != 0) POSTERN_TRY(pins_.forget_share(key));
    }
    return false;
}

Status Guard::forget(const std::string& grant) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    return pins_.forget(grant);
}

Result<bool> Guard::maps_file(int fd, const void* address) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(const postern_pending answer, pins_.run(look_at(fd, address)));
    if (answer.seen == 1 && (answer.error == 0 || answer.error == EXDEV)) return answer.error == 0;
    return fail_errno(static_cast<int>(answer.error), "the guard: cannot look at a mapping of fd {}", fd);
}

bool Guard::can_rule_arguments() const {
    const auto state = pins_.state();
    return state && state->sealed_flag != 0;
}

Status Guard::learn(int fd) {
    postern_pending wanted{};
    wanted.action = POSTERN_PENDING_LEARN;
    return request(fd, wanted, "learn the kind of");
}

Status Guard::forget_refusals(const std::string& grant) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    return pins_.restart_count(grant);
}

Result<GuardListener> Guard::listen(uint64_t cgroup_id) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    return GuardListener::open(pins_, GuardListener::Who::Launcher, cgroup_id);
}

Result<bool> Guard::has_files(const std::string& grant) const {
    POSTERN_ASSIGN(const auto all, pins_.files());
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& each) { return each.first.share == 0 && grant == each.second.grant; });
}

Result<size_t> Guard::revoke(const std::string& grant) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(const auto all, pins_.files());
    size_t revoked = 0;
    for (const auto& [key, policy] : all) {
        if (grant != policy.grant) continue;
        // Not done: it was closed a moment ago.
        POSTERN_ASSIGN(const bool done, pins_.revoke(key, grant));
        revoked += done ? 1 : 0;
    }
    return revoked;
}

Status Guard::move(const std::string& grant, const SandboxIdentity& sandbox) {
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    return pins_.move(grant, sandbox);
}

void Guard::leave() {
    if (!use_) return;
    my_sandboxes_.clear();
    use_->end();
    use_.reset();
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
