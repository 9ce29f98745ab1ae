// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_event.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <algorithm>
#include <cstring>

#include "bpf/verdict.h"
#include "broker-core/live_grant.h"

namespace postern {
namespace {

using ::testing::HasSubstr;

postern_event event_of(uint32_t hook, int32_t verdict) {
    postern_event event{};
    event.time = 5'123'000'000;
    event.pid = 41;
    event.tid = 42;
    event.hook = hook;
    event.flags = POSTERN_POLICY_EXCLUSIVE;
    event.verdict = verdict;
    std::strcpy(event.comm, "worker");
    std::strcpy(event.grant, "0123456789abcdef");
    return event;
}

postern_event ioctl_of(uint32_t cmd, int32_t verdict = POSTERN_DENY_COMMAND) {
    postern_event event = event_of(POSTERN_HOOK_IOCTL, verdict);
    event.cmd = cmd;
    event.nr = POSTERN_NR_IOCTL;
    return event;
}

template <typename Block>
postern_event with_block(postern_event event, const Block& block) {
    std::memcpy(event.block, &block, std::min(sizeof block, sizeof event.block));
    event.block_length = sizeof event.block;
    return event;
}

postern_event range_of(uint32_t hook, uint64_t nr, uint64_t offset, uint64_t length, uint64_t access) {
    postern_event event = event_of(hook, POSTERN_DENY_RANGE);
    event.nr = nr;
    event.offset = offset;
    event.length = length;
    event.access = access;
    return event;
}

/// A client of virtio-blk's second queue; `vma` is where a mapping of its window is shown.
postern_policy policy_with_window(uint64_t vma) {
    postern_policy policy{};
    std::strcpy(policy.grant, "0123456789abcdef");
    std::strcpy(policy.device, "0000:00:02.0");
    std::strcpy(policy.profile, "virtio-blk-queue");
    policy.slice = 1;
    policy.n_windows = 1;
    policy.windows[0] = {(4ULL << 40) + 0x4000, 0x1000, vma, POSTERN_WINDOW_READ | POSTERN_WINDOW_MMAP, 0};
    return policy;
}

constexpr uint64_t kBar4 = 4ULL << 40;

postern_event set_irqs() {
    vfio_irq_set block{};
    block.argsz = 20;
    block.index = VFIO_PCI_MSIX_IRQ_INDEX;
    block.start = 3;
    block.count = 1;
    return with_block(ioctl_of(VFIO_DEVICE_SET_IRQS, POSTERN_DENY_ARGUMENT), block);
}

postern_event stray(uint32_t cmd) {
    postern_event event = ioctl_of(cmd, POSTERN_DENY_STRAY);
    std::memset(event.grant, 0, sizeof event.grant);
    event.sandbox = 77;
    return event;
}

TEST(GuardEvent, CallsInWords) {
    const struct {
        postern_event event;
        const char* words;
    } table[] = {
        {ioctl_of(VFIO_DEVICE_RESET), "ioctl VFIO_DEVICE_RESET"},
        {set_irqs(), "ioctl VFIO_DEVICE_SET_IRQS {argsz=0x14 flags=0x0 index=msix start=0x3 count=0x1}"},
        {ioctl_of(VFIO_DEVICE_SET_IRQS), "ioctl VFIO_DEVICE_SET_IRQS (its argument block cannot be read)"},
        {ioctl_of(0x12345678), "ioctl 0x12345678"},
        {ioctl_of(POSTERN_IOC_RESTRICT, POSTERN_DENY_REVOKED), "ioctl POSTERN_IOC_RESTRICT"},
        // The same number on a container; a stray may be either.
        {ioctl_of(VFIO_DEVICE_PCI_HOT_RESET),
         "ioctl VFIO_DEVICE_PCI_HOT_RESET (its argument block cannot be read)"},
        {stray(VFIO_DEVICE_PCI_HOT_RESET), "ioctl VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA"},
        {stray(VFIO_GROUP_GET_DEVICE_FD), "ioctl VFIO_GROUP_GET_DEVICE_FD"},
        {event_of(POSTERN_HOOK_IOCTL_COMPAT, POSTERN_DENY_COMPAT), "32-bit ioctl 0x0"},
        {ioctl_of(VFIO_DEVICE_RESET, POSTERN_DENY_TASK), "ioctl VFIO_DEVICE_RESET by io_uring"},
        {range_of(POSTERN_HOOK_MMAP, POSTERN_NR_MMAP, kBar4 + 0x3000, 4096, 3),
         "mmap rw of 4096 bytes at bar4+0x3000"},
        {range_of(POSTERN_HOOK_MMAP, POSTERN_NR_MMAP, 0, 8192, 5), "mmap rx of 8192 bytes at bar0+0x0"},
        {range_of(POSTERN_HOOK_MMAP, POSTERN_NR_MMAP, ~0ULL << 12, 1, 0),
         "mmap none of 1 bytes at file offset 0xfffffffffffff000"},
        // Its registers are something else.
        {range_of(POSTERN_HOOK_MMAP, 216, kBar4, 4096, 1), "remap_file_pages r"},
        {range_of(POSTERN_HOOK_ACCESS, POSTERN_NR_PREAD64, (7ULL << 40) + 4, 2, POSTERN_MAY_READ),
         "pread64 of 2 bytes at config+0x4"},
        {range_of(POSTERN_HOOK_ACCESS, POSTERN_NR_PWRITE64, kBar4, 2, POSTERN_MAY_WRITE),
         "pwrite64 of 2 bytes at bar4+0x0"},
        {range_of(POSTERN_HOOK_ACCESS, 19, kBar4, 2, POSTERN_MAY_READ), "readv"},
        {range_of(POSTERN_HOOK_ACCESS, 9999, kBar4, 2, POSTERN_MAY_READ), "system call 9999"},
        {event_of(POSTERN_HOOK_RECEIVE, POSTERN_DENY_RECEIVER),
         "receiving the file (SCM_RIGHTS, pidfd_getfd)"},
        {event_of(99, POSTERN_DENY_HOOK), "an operation that this postern does not know (hook 99)"},
    };
    for (const auto& row : table) EXPECT_EQ(row.words, describe_call(row.event, {}));
}

TEST(GuardEvent, SystemCallsThatAreNotOurs) {
    postern_event worker = range_of(POSTERN_HOOK_ACCESS, 0, kBar4, 8, POSTERN_MAY_READ);
    worker.verdict = POSTERN_DENY_TASK;
    EXPECT_EQ("a read", describe_call(worker, {}));
    EXPECT_TRUE(event_to_json(worker, {})["system_call"].is_null());
    postern_event compat = range_of(POSTERN_HOOK_ACCESS, 3, kBar4, 8, POSTERN_MAY_READ);
    compat.verdict = POSTERN_DENY_COMPAT;
    EXPECT_EQ("read (32-bit)", describe_call(compat, {}));
}

TEST(GuardEvent, AMappingsOffsetIsTranslatedByItsWindow) {
    const auto words = [](uint64_t shown, const postern_policy* policy) {
        return describe_call(range_of(POSTERN_HOOK_MPROTECT, 0, shown, 4096, 3), {policy, 0});
    };
    const postern_policy plain = policy_with_window(kBar4 + 0x4000);
    const postern_policy physical = policy_with_window(0xfeb04000);
    EXPECT_EQ("mprotect to rw of 4096 mapped bytes at bar4+0x4000", words(kBar4 + 0x4000, &plain));
    EXPECT_EQ("mprotect to rw of 4096 mapped bytes at bar4+0x4000", words(0xfeb04000, &physical));
    // Mapped by whoever had the file before: not said rather than said wrongly.
    EXPECT_EQ("mprotect to rw of 4096 mapped bytes", words(0xfec00000, &physical));
    EXPECT_EQ("mprotect to rw of 4096 mapped bytes", words(kBar4 + 0x4000, nullptr));
}

TEST(GuardEvent, ALine) {
    const postern_policy policy = policy_with_window(kBar4 + 0x4000);
    postern_event event = ioctl_of(VFIO_DEVICE_RESET);
    const std::string line = describe_event(event, {&policy, 1'000'000'000});
    EXPECT_EQ(
        "1970-01-01T00:00:06.123Z grant 0123456789abcdef (0000:00:02.0 slice 1) worker[41]: refused: ioctl "
        "VFIO_DEVICE_RESET: the profile does not grant this command",
        line);
    event.untold = 345;
    EXPECT_THAT(describe_event(event, {}), HasSubstr("(345 before it were only counted)"));
    EXPECT_THAT(describe_event(stray(VFIO_GROUP_GET_DEVICE_FD), {}), HasSubstr(" sandbox 77 worker[41]: "));
}

TEST(GuardEvent, AProcesssNameIsNotTrusted) {
    postern_event event = ioctl_of(VFIO_DEVICE_RESET);
    std::memcpy(event.comm, "a\n\x1b[2J\xff\\b\0\0\0\0\0\0", sizeof event.comm);
    EXPECT_THAT(describe_event(event, {}), HasSubstr(R"(a\x0a\x1b[2J\xff\x5cb[41])"));
    EXPECT_NO_THROW((void)event_to_json(event, {}).dump());
    // Nor that it ends.
    std::memset(event.comm, 'x', sizeof event.comm);
    EXPECT_THAT(describe_event(event, {}), HasSubstr(" xxxxxxxxxxxxxxxx[41]"));
}

TEST(GuardEvent, Json) {
    const postern_policy policy = policy_with_window(kBar4 + 0x4000);
    const auto ioctl = event_to_json(set_irqs(), {&policy, 0});
    EXPECT_EQ("VFIO_DEVICE_SET_IRQS", ioctl["ioctl"]["name"]);
    EXPECT_EQ(2, ioctl["ioctl"]["fields"]["index"]);
    EXPECT_EQ(3, ioctl["ioctl"]["fields"]["start"]);
    EXPECT_EQ("argument", ioctl["reason"]);
    EXPECT_EQ("0000:00:02.0", ioctl["device"]);
    EXPECT_EQ(1, ioctl["slice"]);
    EXPECT_EQ("ioctl", ioctl["system_call"]);
    EXPECT_EQ(5'123'000'000U, ioctl["boottime_ns"]);
    EXPECT_FALSE(ioctl.contains("region"));

    const auto unreadable = event_to_json(ioctl_of(VFIO_DEVICE_SET_IRQS), {});
    EXPECT_TRUE(unreadable["ioctl"]["fields"].is_null());
    EXPECT_TRUE(unreadable["ioctl"]["block"].is_null());
    EXPECT_TRUE(unreadable["device"].is_null());

    const auto mapping =
        event_to_json(range_of(POSTERN_HOOK_MMAP, POSTERN_NR_MMAP, kBar4 + 0x3000, 4096, 3), {});
    EXPECT_EQ("bar4", mapping["region"]);
    EXPECT_EQ(0x3000, mapping["region_offset"]);
    EXPECT_EQ(kBar4 + 0x3000, mapping["offset"]);
    EXPECT_EQ("rw", mapping["protection"]);
    EXPECT_EQ("range", mapping["reason"]);
    EXPECT_TRUE(event_to_json(stray(VFIO_GROUP_GET_DEVICE_FD), {&policy, 0})["device"].is_null());
}

TEST(GuardEvent, EveryVerdictHasWords) {
    for (int32_t verdict = POSTERN_DENY_SYSCALL; verdict >= POSTERN_DENY_STRAY; --verdict) {
        EXPECT_NE("unknown", verdict_name(verdict)) << verdict;
        EXPECT_NE(verdict_words(-99), verdict_words(verdict)) << verdict;
        for (int32_t other = verdict - 1; other >= POSTERN_DENY_STRAY; --other) {
            EXPECT_NE(verdict_name(other), verdict_name(verdict));
        }
    }
    EXPECT_EQ("unknown", verdict_name(-99));
}

TEST(LiveGrant, FilesOfAGrantAreOne) {
    postern_policy old = policy_with_window(0);
    old.since = 5;
    old.denied = 2;
    old.flags = POSTERN_POLICY_REVOKED;
    postern_policy other = old;
    std::strcpy(other.grant, "other");
    other.since = 3;
    postern_policy second = old;
    second.since = 4;
    second.denied = 40;
    second.flags = 0;
    const auto grants = live_grants({{{1, 0}, old}, {{2, 0}, other}, {{3, 7}, second}});
    ASSERT_EQ(2U, grants.size());
    EXPECT_EQ("other", grants[0].id);
    EXPECT_TRUE(grants[0].revoked);
    EXPECT_EQ(2U, grants[0].refused);
    EXPECT_EQ("0123456789abcdef", grants[1].id);
    EXPECT_EQ(42U, grants[1].refused);
    EXPECT_EQ(4U, grants[1].since);
    EXPECT_FALSE(grants[1].revoked);
    EXPECT_EQ((std::vector<GuardPins::Key>{{1, 0}, {3, 7}}), grants[1].files);
    EXPECT_TRUE(live_grants({}).empty());
}

}  // namespace
}  // namespace postern
