// SPDX-License-Identifier: Apache-2.0
// The guard's decision against a table of cases and against a model that shares nothing with it, and the
// policy's way into the kernel's form.

#include "bpf/decide.h"

#include <gtest/gtest.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>

#include "broker-core/guard_policy.h"
#include "tests/support/native_fetch.h"

namespace postern {
namespace {

// The header's own numbers are those of the system.
static_assert(POSTERN_NR_MMAP == SYS_mmap && POSTERN_NR_IOCTL == SYS_ioctl);
static_assert(POSTERN_NR_PREAD64 == SYS_pread64 && POSTERN_NR_PWRITE64 == SYS_pwrite64);
static_assert(POSTERN_PROT_READ == PROT_READ && POSTERN_PROT_WRITE == PROT_WRITE);
static_assert(POSTERN_MAP_SHARED == MAP_SHARED && POSTERN_MAP_SHARED_VALIDATE == MAP_SHARED_VALIDATE);
static_assert(POSTERN_MAP_TYPE == MAP_TYPE);
static_assert(POSTERN_MAP_HARMLESS == (MAP_FIXED | MAP_32BIT | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE |
                                       MAP_NONBLOCK | MAP_FIXED_NOREPLACE));

constexpr uint64_t kFar = 4ULL << 40;  // region 4 of a VFIO device

/// Windows: rw pages 0x3000–0x4fff, r page 0x8000, pread rw 0x9010–0x902f, w page 0xb000, r mmap of 16 bytes
/// at 0xd100, all from kFar on; mappings of them show themselves 0x7000000 further on.
FilePolicy example() {
    const auto window = [](uint64_t offset, uint64_t length, const char* access, bool mmap) {
        GuardWindow made;
        made.offset = kFar + offset;
        made.length = length;
        made.vma_offset = ((kFar + offset) & ~0xfffULL) + 0x7000000;
        made.read = std::strchr(access, 'r') != nullptr;
        made.write = std::strchr(access, 'w') != nullptr;
        made.mmap = mmap;
        made.pread = !mmap;
        return made;
    };
    FilePolicy policy;
    policy.grant = "test";
    policy.ioctls = {{.number = 0x3b6b}, {.number = 0x3b6c}};
    policy.windows = {window(0x3000, 0x2000, "rw", true), window(0x8000, 0x1000, "r", true),
                      window(0x9010, 0x20, "rw", false), window(0xb000, 0x1000, "w", true),
                      window(0xd100, 0x10, "r", true)};
    policy.forward = Forward::Sandbox;
    policy.sandbox_cgroup_id = 77;
    policy.cgroup_level = 2;
    return policy;
}

postern_policy encoded(const FilePolicy& policy = example()) {
    auto made = encode(policy);
    EXPECT_TRUE(made) << made.error().message;
    return *made;
}

int decide(const postern_call& call) {
    const postern_policy policy = encoded();
    return postern_decide(&policy, &call);
}

postern_call ioctl_call(uint32_t cmd) {
    postern_call call{};
    call.hook = POSTERN_HOOK_IOCTL;
    call.nr = SYS_ioctl;
    call.cmd = cmd;
    return call;
}

postern_call mmap_call(uint64_t offset, uint64_t length, uint64_t prot, uint64_t flags = MAP_SHARED) {
    postern_call call{};
    call.hook = POSTERN_HOOK_MMAP;
    call.nr = SYS_mmap;
    call.args[1] = length;
    call.args[2] = call.reqprot = call.prot = prot;
    call.args[3] = call.flags = flags;
    call.args[5] = kFar + offset;
    return call;
}

postern_call mprotect_call(uint64_t offset, uint64_t length, uint64_t prot) {
    postern_call call{};
    call.hook = POSTERN_HOOK_MPROTECT;
    call.nr = SYS_mprotect;
    call.reqprot = call.prot = prot;
    call.vma_pgoff = (kFar + 0x7000000 + offset) >> 12;
    call.vma_length = length;
    return call;
}

postern_call access_call(uint64_t nr, uint64_t offset, uint64_t count, uint32_t mask) {
    postern_call call{};
    call.hook = POSTERN_HOOK_ACCESS;
    call.nr = nr;
    call.args[2] = count;
    call.args[3] = kFar + offset;
    call.mask = mask;
    return call;
}

postern_call read_call(uint64_t offset, uint64_t count) {
    return access_call(SYS_pread64, offset, count, POSTERN_MAY_READ);
}
postern_call write_call(uint64_t offset, uint64_t count) {
    return access_call(SYS_pwrite64, offset, count, POSTERN_MAY_WRITE);
}

postern_call with_nr(postern_call call, uint64_t nr) {
    call.nr = nr;
    return call;
}
postern_call with_task(postern_call call, uint32_t task) {
    call.task = task;
    return call;
}

TEST(Decide, IoctlsByCommand) {
    EXPECT_EQ(POSTERN_ALLOW, decide(ioctl_call(0x3b6b)));
    EXPECT_EQ(POSTERN_ALLOW, decide(ioctl_call(0x3b6c)));
    EXPECT_EQ(POSTERN_DENY_COMMAND, decide(ioctl_call(0x3b6a)));
    EXPECT_EQ(POSTERN_DENY_COMMAND, decide(ioctl_call(0)));  // the unused rest of the list holds zeros
}

TEST(Decide, EveryCommandOfALongList) {
    FilePolicy policy = example();
    policy.ioctls.clear();
    // Not in order, and with the largest there is.
    for (uint32_t i = 0; i < 63; i++) policy.ioctls.push_back({.number = (i * 37 % 63 + 1) * 3});
    policy.ioctls.push_back({.number = ~0U});
    const postern_policy made = encoded(policy);
    for (uint32_t number = 0; number < 200; number++) {
        const postern_call call = ioctl_call(number);
        const bool listed = number > 0 && number % 3 == 0 && number <= 189;
        EXPECT_EQ(listed, postern_decide(&made, &call) == POSTERN_ALLOW) << number;
    }
    const postern_call largest = ioctl_call(~0U);
    EXPECT_EQ(POSTERN_ALLOW, postern_decide(&made, &largest));
    EXPECT_EQ(POSTERN_DENY_COMMAND, decide(largest));  // there it is an unused entry's
}

TEST(Decide, IoctlsOnlyFromTheSystemCall) {
    EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(ioctl_call(0x3b6b), 54)));               // i386
    EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(ioctl_call(0x3b6b), 0x40000000 + 16)));  // x32
    EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(ioctl_call(0x3b6b), ~0ULL)));
    EXPECT_EQ(POSTERN_DENY_COMPAT, decide(with_task(ioctl_call(0x3b6b), POSTERN_TASK_COMPAT)));
    EXPECT_EQ(POSTERN_DENY_TASK, decide(with_task(ioctl_call(0x3b6b), POSTERN_TASK_KERNEL)));
    postern_call compat = ioctl_call(0x3b6b);
    compat.hook = POSTERN_HOOK_IOCTL_COMPAT;
    EXPECT_EQ(POSTERN_DENY_COMPAT, decide(compat));
}

TEST(Decide, MmapInsideOneWindow) {
    constexpr int kRw = PROT_READ | PROT_WRITE;
    EXPECT_EQ(POSTERN_ALLOW, decide(mmap_call(0x3000, 0x2000, kRw)));
    EXPECT_EQ(POSTERN_ALLOW, decide(mmap_call(0x4000, 0x1000, PROT_READ)));
    EXPECT_EQ(POSTERN_ALLOW, decide(mmap_call(0x4000, 1, PROT_WRITE)));
    EXPECT_EQ(POSTERN_ALLOW, decide(mmap_call(0x3000, 0x2000, PROT_NONE)));
    EXPECT_EQ(POSTERN_ALLOW, decide(mmap_call(0xd000, 0x1000, PROT_READ)));  // rounded out
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x2000, 0x1000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x2000, 0x2000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x5000, 0x1000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x4000, 0x1001, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x3000, 0x2001, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x2000, 0x4000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x5000, 0x1000, PROT_NONE)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x3000, 0, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x3800, 0x1000, PROT_READ)));  // not a page
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x3000, ~0ULL, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x3000, ~0ULL - 0xfff, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x9000, 0x1000, PROT_READ)));  // pread only
}

TEST(Decide, MmapAccess) {
    EXPECT_EQ(POSTERN_ALLOW, decide(mmap_call(0x8000, 0x1000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x8000, 0x1000, PROT_WRITE)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0x8000, 0x1000, PROT_READ | PROT_WRITE)));
    EXPECT_EQ(POSTERN_ALLOW, decide(mmap_call(0xb000, 0x1000, PROT_WRITE)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mmap_call(0xb000, 0x1000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_PROT, decide(mmap_call(0x3000, 0x1000, PROT_READ | PROT_EXEC)));
    EXPECT_EQ(POSTERN_DENY_PROT, decide(mmap_call(0x3000, 0x1000, PROT_READ | 8)));
    EXPECT_EQ(POSTERN_DENY_PROT, decide(mmap_call(0x3000, 0x1000, 1ULL << 32 | PROT_READ)));
    // What the kernel will apply counts as well as what was asked for: READ_IMPLIES_EXEC.
    postern_call call = mmap_call(0x3000, 0x1000, PROT_READ);
    call.prot |= PROT_EXEC;
    EXPECT_EQ(POSTERN_DENY_PROT, decide(call));
    call = mmap_call(0x8000, 0x1000, PROT_READ);
    call.reqprot |= PROT_WRITE;
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(call));
}

TEST(Decide, MmapFlags) {
    const auto with_flags = [](uint64_t flags) {
        return decide(mmap_call(0x3000, 0x1000, PROT_READ, flags));
    };
    EXPECT_EQ(POSTERN_ALLOW, with_flags(MAP_SHARED_VALIDATE));
    EXPECT_EQ(POSTERN_ALLOW, with_flags(MAP_SHARED | POSTERN_MAP_HARMLESS));
    EXPECT_EQ(POSTERN_DENY_FLAGS, with_flags(0));
    EXPECT_EQ(POSTERN_DENY_FLAGS, with_flags(MAP_PRIVATE));
    EXPECT_EQ(POSTERN_DENY_FLAGS, with_flags(8));  // MAP_DROPPABLE
    EXPECT_EQ(POSTERN_DENY_FLAGS, with_flags(MAP_SHARED | MAP_HUGETLB));
    EXPECT_EQ(POSTERN_DENY_FLAGS, with_flags(MAP_SHARED_VALIDATE | MAP_SYNC));
    EXPECT_EQ(POSTERN_DENY_FLAGS, with_flags(MAP_SHARED | MAP_GROWSDOWN));
    EXPECT_EQ(POSTERN_DENY_FLAGS, with_flags(1ULL << 32 | MAP_SHARED));
    postern_call call = mmap_call(0x3000, 0x1000, PROT_READ);
    call.flags = MAP_PRIVATE;
    EXPECT_EQ(POSTERN_DENY_FLAGS, decide(call));
}

TEST(Decide, MmapOnlyFromTheSystemCall) {
    const postern_call allowed = mmap_call(0x3000, 0x1000, PROT_READ);
    EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(allowed, SYS_remap_file_pages)));
    EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(allowed, SYS_shmat)));
    EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(allowed, 0x40000009)));
    EXPECT_EQ(POSTERN_DENY_COMPAT, decide(with_task(allowed, POSTERN_TASK_COMPAT)));
    EXPECT_EQ(POSTERN_DENY_TASK, decide(with_task(allowed, POSTERN_TASK_KERNEL)));
    EXPECT_EQ(POSTERN_ALLOW, decide(with_task(allowed, POSTERN_TASK_IO_URING)));
}

TEST(Decide, Mprotect) {
    EXPECT_EQ(POSTERN_ALLOW, decide(mprotect_call(0x3000, 0x2000, PROT_READ | PROT_WRITE)));
    EXPECT_EQ(POSTERN_ALLOW, decide(mprotect_call(0x8000, 0x1000, PROT_NONE)));
    EXPECT_EQ(POSTERN_ALLOW, decide(mprotect_call(0xd000, 0x1000, PROT_READ)));
    EXPECT_EQ(POSTERN_ALLOW, decide(with_nr(mprotect_call(0x8000, 0x1000, PROT_READ), SYS_pkey_mprotect)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mprotect_call(0x8000, 0x1000, PROT_READ | PROT_WRITE)));
    EXPECT_EQ(POSTERN_DENY_PROT, decide(mprotect_call(0x3000, 0x1000, PROT_READ | PROT_EXEC)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mprotect_call(0x4000, 0x2000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mprotect_call(0x9000, 0x1000, PROT_READ)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(mprotect_call(0x3000, 0, PROT_READ)));
    // By where mappings say they are, not by file offset.
    postern_call call = mprotect_call(0x3000, 0x1000, PROT_READ);
    call.vma_pgoff = (kFar + 0x3000) >> 12;
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(call));
    // A page number whose byte offset would wrap onto the window.
    call = mprotect_call(0x3000, 0x1000, PROT_READ);
    call.vma_pgoff += 1ULL << 52;
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(call));
}

TEST(Decide, ReadsAndWrites) {
    EXPECT_EQ(POSTERN_ALLOW, decide(read_call(0x9010, 0x20)));
    EXPECT_EQ(POSTERN_ALLOW, decide(read_call(0x902f, 1)));
    EXPECT_EQ(POSTERN_ALLOW, decide(write_call(0x9010, 4)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(read_call(0x900f, 1)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(read_call(0x900f, 2)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(read_call(0x9010, 0x21)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(read_call(0x9030, 1)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(read_call(0x9010, 0)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(read_call(0x9010, ~0ULL)));
    EXPECT_EQ(POSTERN_DENY_RANGE, decide(read_call(0x3000, 4)));  // mmap only
    EXPECT_EQ(POSTERN_DENY_MASK, decide(access_call(SYS_pread64, 0x9010, 4, POSTERN_MAY_WRITE)));
    EXPECT_EQ(POSTERN_DENY_MASK, decide(access_call(SYS_pwrite64, 0x9010, 4, POSTERN_MAY_READ)));
    EXPECT_EQ(POSTERN_DENY_MASK, decide(access_call(SYS_pread64, 0x9010, 4, POSTERN_MAY_READ | 1)));
    EXPECT_EQ(POSTERN_DENY_MASK, decide(access_call(SYS_pread64, 0x9010, 4, 0)));
}

TEST(Decide, ReadsAndWritesOnlyFromTheirSystemCalls) {
    const postern_call allowed = read_call(0x9010, 4);
    for (const long nr :
         {SYS_read, SYS_readv, SYS_preadv, SYS_preadv2, SYS_sendfile, SYS_splice, SYS_copy_file_range,
          SYS_io_submit, SYS_io_uring_enter, SYS_fallocate, SYS_execve, SYS_write}) {
        EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(allowed, static_cast<uint64_t>(nr)))) << nr;
    }
    EXPECT_EQ(POSTERN_DENY_SYSCALL, decide(with_nr(allowed, 0x40000000 + SYS_pread64)));
    EXPECT_EQ(POSTERN_DENY_COMPAT, decide(with_task(allowed, POSTERN_TASK_COMPAT)));
    EXPECT_EQ(POSTERN_DENY_TASK, decide(with_task(allowed, POSTERN_TASK_KERNEL)));
    EXPECT_EQ(POSTERN_DENY_TASK, decide(with_task(allowed, POSTERN_TASK_IO_URING)));
    EXPECT_EQ(POSTERN_DENY_TASK, decide(with_task(write_call(0x9010, 4), POSTERN_TASK_IO_URING)));
}

TEST(Decide, ReceivingFollowsForward) {
    const auto receive = [](Forward forward, uint32_t task) {
        FilePolicy policy = example();
        policy.forward = forward;
        const postern_policy made = encoded(policy);
        postern_call call{};
        call.hook = POSTERN_HOOK_RECEIVE;
        call.task = task;
        return postern_decide(&made, &call);
    };
    EXPECT_EQ(POSTERN_ALLOW, receive(Forward::Sandbox, POSTERN_TASK_IN_SANDBOX));
    EXPECT_EQ(POSTERN_DENY_RECEIVER, receive(Forward::Sandbox, 0));
    EXPECT_EQ(POSTERN_DENY_RECEIVER, receive(Forward::Never, POSTERN_TASK_IN_SANDBOX));
    EXPECT_EQ(POSTERN_ALLOW, receive(Forward::Anyone, 0));
    postern_policy unknown = encoded();
    unknown.forward = 3;
    postern_call call{};
    call.hook = POSTERN_HOOK_RECEIVE;
    call.task = POSTERN_TASK_IN_SANDBOX;
    EXPECT_EQ(POSTERN_DENY_RECEIVER, postern_decide(&unknown, &call));
}

TEST(Decide, UnknownIsRefused) {
    for (const uint32_t hook : {0U, 7U, ~0U}) {
        postern_call call = ioctl_call(0x3b6b);
        call.hook = hook;
        EXPECT_EQ(POSTERN_DENY_HOOK, decide(call));
    }
    EXPECT_EQ(POSTERN_DENY_TASK, decide(with_task(ioctl_call(0x3b6b), 32)));
    // A policy of zeros allows nothing.
    const postern_policy none{};
    const postern_call calls[] = {ioctl_call(0), mmap_call(0, 0x1000, PROT_NONE),
                                  mprotect_call(0, 0x1000, PROT_NONE), read_call(0, 1), write_call(0, 1)};
    for (const postern_call& call : calls) EXPECT_NE(POSTERN_ALLOW, postern_decide(&none, &call));
}

// ---- encode
// ----------------------------------------------------------------------------------------------------

TEST(EncodePolicy, KeepsEverything) {
    const postern_policy policy = encoded();
    EXPECT_STREQ("test", policy.grant);
    EXPECT_EQ(77U, policy.sandbox_cgroup);
    EXPECT_EQ(2U, policy.cgroup_level);
    EXPECT_EQ(POSTERN_FORWARD_SANDBOX, policy.forward);
    EXPECT_EQ(POSTERN_POLICY_EXCLUSIVE, policy.flags);
    EXPECT_EQ(0x3b6bU, policy.ioctls[0].cmd);
    EXPECT_EQ(0x3b6cU, policy.ioctls[1].cmd);
    EXPECT_EQ(0U, policy.ioctls[2].flags);
    EXPECT_EQ(~0U, policy.ioctls[2].cmd);
    ASSERT_EQ(5U, policy.n_windows);
    EXPECT_EQ(kFar + 0x3000, policy.windows[0].offset);
    EXPECT_EQ(0x2000U, policy.windows[0].length);
    EXPECT_EQ(kFar + 0x7003000, policy.windows[0].vma_offset);
    EXPECT_EQ(POSTERN_WINDOW_READ | POSTERN_WINDOW_WRITE | POSTERN_WINDOW_MMAP, policy.windows[0].flags);
    EXPECT_EQ(POSTERN_WINDOW_READ | POSTERN_WINDOW_WRITE | POSTERN_WINDOW_PREAD, policy.windows[2].flags);
}

std::string refusal(const FilePolicy& policy) {
    const auto made = encode(policy);
    return made ? "accepted" : made.error().message;
}

TEST(EncodePolicy, RefusesWhatDoesNotFit) {
    const auto changed = [](auto&& change) {
        FilePolicy policy = example();
        change(policy);
        return refusal(policy);
    };
    EXPECT_EQ("accepted", changed([](FilePolicy& policy) { policy.grant = std::string(39, 'x'); }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.grant = std::string(40, 'x'); }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.grant = ""; }));
    const auto numbered = [](uint32_t count) {
        return [count](FilePolicy& policy) {
            policy.ioctls.clear();
            for (uint32_t i = 0; i < count; ++i) policy.ioctls.push_back({.number = i});
        };
    };
    EXPECT_EQ("accepted", changed(numbered(64)));
    EXPECT_EQ("policy of test: 65 ioctls; the guard holds 64", changed(numbered(65)));
    const auto tested = [](size_t values) {
        return [values](FilePolicy& policy) {
            FieldTest test;
            for (size_t i = 0; i < values; ++i) test.ranges.emplace_back(i, i);
            policy.ioctls = {{.number = 1, .alternatives = {{test}}, .block_size = 8}};
        };
    };
    EXPECT_EQ("accepted", changed(tested(48)));
    EXPECT_NE("accepted", changed(tested(49)));
    EXPECT_NE("accepted", changed(tested(0)));
    EXPECT_EQ("accepted", changed([](FilePolicy& policy) { policy.windows.resize(32, policy.windows[0]); }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.windows.resize(33, policy.windows[0]); }));
    EXPECT_EQ("policy of test: window 1: is empty",
              changed([](FilePolicy& policy) { policy.windows[1].length = 0; }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.windows[1].length = 1ULL << 63; }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.windows[1].offset = 1ULL << 63; }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.windows[1].read = false; }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.windows[1].mmap = false; }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.sandbox_cgroup_id = 0; }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.cgroup_level = 0; }));
    EXPECT_NE("accepted", changed([](FilePolicy& policy) { policy.cgroup_level = 32; }));
    EXPECT_EQ("accepted", changed([](FilePolicy& policy) { policy.cgroup_level = 31; }));
}

/// Who has no part in a shared file may hold it as root, outside of every sandbox, and nothing else.
TEST(DecideShared, WithoutAShare) {
    postern_policy shared = encoded();
    shared.flags |= POSTERN_POLICY_SHARED;
    const postern_ioctl_entry* rules = nullptr;
    EXPECT_EQ(POSTERN_DENY_SHARE, postern_decide_ioctl(&shared, 0, POSTERN_NR_IOCTL, 0x3b6b, &rules));
    postern_call call{};
    for (const uint32_t hook :
         {POSTERN_HOOK_IOCTL, POSTERN_HOOK_MMAP, POSTERN_HOOK_MPROTECT, POSTERN_HOOK_ACCESS}) {
        call.hook = hook;
        EXPECT_EQ(POSTERN_DENY_SHARE, postern_decide(&shared, &call)) << hook;
    }
    call.hook = POSTERN_HOOK_RECEIVE;
    EXPECT_EQ(POSTERN_DENY_RECEIVER, postern_decide(&shared, &call));
    call.task = POSTERN_TASK_TRUSTED;
    EXPECT_EQ(POSTERN_ALLOW, postern_decide(&shared, &call));
    call.task = POSTERN_TASK_TRUSTED | POSTERN_TASK_IN_SANDBOX;
    EXPECT_EQ(POSTERN_DENY_SHARE, postern_decide(&shared, &call));
    shared.flags |= POSTERN_POLICY_REVOKED;
    call.task = POSTERN_TASK_TRUSTED;
    EXPECT_EQ(POSTERN_DENY_REVOKED, postern_decide(&shared, &call));
}

}  // namespace
}  // namespace postern
