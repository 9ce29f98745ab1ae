// SPDX-License-Identifier: Apache-2.0
#include "tests/support/guard_dice.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace postern::test {
namespace {

constexpr size_t kPage = 4096;

postern_rule random_rule(Dice& dice) {
    postern_rule rule{};
    rule.mask = dice.one_in(4) ? dice.below(16) : ~0ULL;
    rule.min = dice.one_in(16) ? dice.place() : dice.below(3);
    rule.max = dice.one_in(16) ? dice.place() : rule.min + dice.below(5);
    rule.offset = static_cast<uint16_t>(dice.one_in(32) ? dice.below(0x10000) : dice.below(6) * 4);
    // Anywhere around the end of what is fetched at once, across its words, too.
    if (dice.one_in(8)) rule.offset = static_cast<uint16_t>(dice.below(80));
    rule.width = static_cast<uint8_t>(dice.one_in(32) ? dice.below(256) : 1ULL << dice.below(4));
    rule.flags = static_cast<uint8_t>(dice.one_in(32)  ? dice.below(256)
                                      : dice.one_in(2) ? POSTERN_RULE_FIRST
                                                       : dice.below(4));
    if (dice.one_in(3)) {
        // A range: its length lies in the block like any field, and has a place behind which it ends.
        rule.flags |= POSTERN_RULE_RANGE;
        rule.length_at = static_cast<uint16_t>(dice.one_in(32) ? dice.below(0x10000) : dice.below(6) * 4);
        rule.max = dice.one_in(4) ? ~0ULL - dice.below(3) : rule.max;
    }
    return rule;
}

}  // namespace

BlockPage::BlockPage()
    : page_(static_cast<unsigned char*>(
          ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    if (page_ == MAP_FAILED || ::mprotect(page_ + kPage, kPage, PROT_NONE) != 0) std::abort();
}

BlockPage::~BlockPage() {
    ::munmap(page_, 2 * kPage);
}

void BlockPage::fill(Dice& dice, postern_call& call) {
    constexpr uint64_t kSealed[] = {0, 1, 4, 8, 16, 20, 24, 32, 32, 32, 64, 72, 80, kPage};
    call.sealed = kSealed[dice.below(std::size(kSealed))];
    unsigned char* block = page_ + kPage - call.sealed;
    call.arg = reinterpret_cast<uint64_t>(block);
    const size_t length = std::min<size_t>(call.sealed, 80);
    for (size_t i = 0; i < length; i++)
        block[i] = static_cast<unsigned char>(dice.one_in(24) ? dice.below(256) : 0);
    for (size_t i = 0; i + 4 <= length; i += 4) block[i] = static_cast<unsigned char>(dice.below(5));
    if (length >= 4 && dice.one_in(2)) block[0] = static_cast<unsigned char>(dice.below(40));
    // A length of nearly 2^64, with which a careless sum wraps.
    if (length >= 20 && dice.one_in(8)) std::memset(block + 4 * dice.below((length - 8) / 4), 0xff, 8);
}

postern_policy random_policy(Dice& dice) {
    postern_policy policy{};
    const size_t n_ioctls = dice.one_in(50) ? POSTERN_MAX_IOCTLS : dice.below(5);
    policy.n_windows = static_cast<uint32_t>(dice.one_in(50) ? dice.below(1ULL << 32) : dice.below(5));
    policy.forward = static_cast<uint32_t>(dice.below(4));
    policy.flags = static_cast<uint32_t>(dice.one_in(8) ? dice.below(16) : dice.below(4));
    const bool all = policy.n_windows > 5;
    const auto some = [all](auto& array, size_t few) { return all ? std::size(array) : few; };
    std::fill(std::begin(policy.ioctls), std::end(policy.ioctls), postern_ioctl_entry{~0U, 0, 0, 0, 0, 0});
    policy.n_ioctls = static_cast<uint32_t>(dice.one_in(50) ? dice.below(20) : n_ioctls);
    for (size_t i = 0; i < n_ioctls; i++) {
        postern_ioctl_entry& listed = policy.ioctls[i];
        listed.flags = POSTERN_IOCTL_ALLOWED;
        // In order and each once, as the guard's own makers have them; a long list goes far.
        listed.cmd = static_cast<uint32_t>((i == 0 ? 0 : policy.ioctls[i - 1].cmd + 1) + dice.below(2));
        if (dice.one_in(8)) listed.flags = static_cast<uint32_t>(dice.below(4));
        if (dice.one_in(3)) continue;
        if (listed.flags == POSTERN_IOCTL_ALLOWED) listed.flags = POSTERN_IOCTL_RULED;
        listed.first_rule = static_cast<uint16_t>(dice.one_in(32) ? dice.below(0x10000) : dice.below(8));
        listed.n_rules = static_cast<uint16_t>(dice.one_in(32) ? dice.below(0x10000) : dice.below(5));
        listed.block_size =
            static_cast<uint16_t>(dice.one_in(16) ? dice.below(0x10000) : 16 + dice.below(3) * 4);
        if (dice.one_in(8)) listed.block_size = static_cast<uint16_t>(56 + dice.below(24));
        listed.size_at = static_cast<uint16_t>(dice.one_in(3)   ? 0xffff
                                               : dice.one_in(8) ? dice.below(0x10000)
                                                                : 0);
    }
    for (size_t i = 0; i < some(policy.rules, 12); i++) policy.rules[i] = random_rule(dice);
    for (size_t i = 0; i < some(policy.windows, 5); i++) {
        postern_range& window = policy.windows[i];
        window.offset = dice.place();
        window.length = dice.length();
        window.vma_offset = dice.one_in(4) ? dice.place() : window.offset & ~0xfffULL;
        window.flags = static_cast<uint32_t>(dice.one_in(50) ? dice.below(1ULL << 32) : dice.below(16));
    }
    return policy;
}

postern_call random_call(Dice& dice, const postern_policy& policy) {
    constexpr uint64_t kFlags[] = {1, 1, 1, 1, 3, 0x11, 0x8001, 0x11e051, 2, 0, 8, 9, 0x40001, 0x21};
    postern_call call{};
    call.hook = static_cast<uint32_t>(dice.one_in(16) ? dice.below(8) : 1 + dice.below(6));
    call.task = static_cast<uint32_t>(dice.one_in(4) ? dice.below(33) : 0);
    call.nr = dice.one_in(8) ? dice.below(600) : call.hook == POSTERN_HOOK_ACCESS ? 17 + dice.below(2) : 16;
    if (call.hook == POSTERN_HOOK_MMAP && !dice.one_in(8)) call.nr = 9;
    for (auto& arg : call.args) arg = dice.place();
    call.args[1] = dice.length();
    call.prot = call.reqprot = dice.one_in(8) ? dice.place() : dice.below(4);
    if (dice.one_in(8)) call.prot = dice.below(8);
    call.args[3] = call.hook == POSTERN_HOOK_MMAP ? kFlags[dice.below(std::size(kFlags))] : call.args[3];
    call.flags = dice.one_in(16) ? 0x11 : call.args[3];
    call.args[2] = call.hook == POSTERN_HOOK_ACCESS ? dice.length() : call.reqprot;
    call.vma_pgoff = dice.place() >> (dice.one_in(16) ? 0 : 12);
    call.vma_length = dice.length() & ~0xfffULL;
    if (!dice.one_in(3)) {
        // Near a window of the policy, or nearly nothing would be allowed.
        const postern_range& window = policy.windows[dice.below(5)];
        call.args[5] = (window.offset & ~0xfffULL) + dice.below(2) * 0x1000;
        call.args[1] = dice.one_in(2) ? window.length : 1 + dice.below(0x1800);
        call.vma_pgoff = (window.vma_offset >> 12) + dice.below(2);
        call.vma_length = dice.one_in(2) ? 0x1000 : call.vma_length;
        if (call.hook == POSTERN_HOOK_ACCESS) {
            call.args[3] = window.offset + dice.below(16);
            call.args[2] = 1 + dice.below(16);
        }
    }
    call.cmd = policy.ioctls[dice.one_in(8) ? dice.below(POSTERN_MAX_IOCTLS) : dice.below(4)].cmd;
    if (dice.one_in(4)) call.cmd = static_cast<uint32_t>(dice.below(6));
    call.mask = call.nr == 17 ? 4 : 2;
    if (dice.one_in(8)) call.mask = static_cast<uint32_t>(dice.below(64));
    return call;
}

uint64_t random_restriction(Dice& dice) {
    const uint64_t op = dice.one_in(16) ? dice.below(256) : dice.below(7);
    const uint64_t operand = dice.one_in(8)                  ? dice.place() & ~(0xffULL << 56)
                             : op == POSTERN_RESTRICT_WINDOW ? dice.below(6) << 8 | dice.below(16)
                                                             : dice.below(16);
    return op << 56 |
           (op == POSTERN_RESTRICT_IOCTLS || op == POSTERN_RESTRICT_FORWARD ? operand & -dice.below(2)
                                                                            : operand);
}

}  // namespace postern::test
