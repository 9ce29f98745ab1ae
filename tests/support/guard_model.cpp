// SPDX-License-Identifier: Apache-2.0
#include "tests/support/guard_model.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/support/native_fetch.h"

namespace postern::test {
namespace {

using Wide = unsigned __int128;

struct Span {
    Wide begin, end;
    [[nodiscard]] bool holds(Span inner) const { return begin <= inner.begin && inner.end <= end; }
};

Span pages(Span bytes) {
    return {bytes.begin / 4096 * 4096, (bytes.end + 4095) / 4096 * 4096};
}

constexpr Wide kAll = static_cast<Wide>(1) << 64;

/// A little endian number, byte by byte; only bytes that are sealed may be asked for.
Wide number_at(const postern_call& call, Wide offset, unsigned width) {
    Wide value = 0;
    for (unsigned i = 0; i < width; i++) {
        const auto byte = reinterpret_cast<const unsigned char*>(call.arg)[static_cast<uint64_t>(offset) + i];
        value |= static_cast<Wide>(byte) << (8 * i);
    }
    return value;
}

/// First the list of rules is taken apart into alternatives of chains of ranges, then it is judged.
bool block_fits(const postern_policy& policy, const postern_ioctl_entry& listed, const postern_call& call) {
    Wide length = listed.block_size;
    if (listed.size_at != 0xffff) {
        if (static_cast<Wide>(listed.size_at) + 4 > call.sealed) return false;
        length = std::max(length, number_at(call, listed.size_at, 4));
    }
    if (length == 0 || length > call.sealed || listed.first_rule + listed.n_rules > 48) return false;

    struct Chain {
        bool complete = false;
        bool holds = false;
    };
    std::vector<std::vector<Chain>> alternatives;
    bool orphan = false;
    for (unsigned i = 0; i < listed.n_rules; i++) {
        const postern_rule& rule = policy.rules[listed.first_rule + i];
        if (rule.width == 0 || rule.width > 8 || static_cast<Wide>(rule.offset) + rule.width > length)
            return false;
        const Wide value = number_at(call, rule.offset, rule.width) & rule.mask;
        Wide span = 1;
        if ((rule.flags & 4) != 0) {
            if (static_cast<Wide>(rule.length_at) + 8 > length) return false;
            span = number_at(call, rule.length_at, 8);
        }
        const bool first = (rule.flags & 1) != 0;
        if (first) alternatives.emplace_back();
        orphan = alternatives.empty();
        if (orphan) continue;
        auto& chains = alternatives.back();
        if (chains.empty() || chains.back().complete) chains.emplace_back();
        // All of the range [value, value + span), or its single value, lies in [min, max].
        const bool fits = value >= rule.min && span != 0 && value + span - 1 <= rule.max;
        chains.back().holds = chains.back().holds || fits;
        chains.back().complete = (rule.flags & 2) == 0;
    }
    for (const auto& chains : alternatives) {
        bool all = true;
        for (const Chain& chain : chains) all = all && chain.complete && chain.holds;
        if (all) return true;
    }
    return false;
}

}  // namespace

bool model_allows(const postern_policy& policy, const postern_call& call) {
    if ((policy.flags & 4) != 0) return false;
    const bool compat = (call.task & POSTERN_TASK_COMPAT) != 0;
    const bool kernel = (call.task & POSTERN_TASK_KERNEL) != 0;
    if (call.task > 31) return false;
    // A shared file's own policy: root outside of all sandboxes may hold it, and nothing else.
    if ((policy.flags & 8) != 0) return call.hook == POSTERN_HOOK_RECEIVE && (call.task & 24) == 16;
    const auto some_window = [&](uint32_t method, bool read, bool write, auto&& fits) {
        for (uint32_t i = 0; i < policy.n_windows && i < 32; i++) {
            const postern_range& window = policy.windows[i];
            const Span span{window.offset, static_cast<Wide>(window.offset) + window.length};
            if (window.length == 0 || span.end > kAll) continue;
            if ((window.flags & method) == 0 || (read && (window.flags & 1) == 0) ||
                (write && (window.flags & 2) == 0))
                continue;
            if (fits(window, span)) return true;
        }
        return false;
    };
    const uint64_t prots = call.reqprot | call.prot | (call.hook == POSTERN_HOOK_MMAP ? call.args[2] : 0);
    const bool read = (prots & 1) != 0;
    const bool write = (prots & 2) != 0;
    switch (call.hook) {
        case POSTERN_HOOK_IOCTL: {
            const postern_ioctl_entry* listed = nullptr;
            // A short list ends at its eighth entry, whatever stands behind.
            for (uint32_t i = 0; i < (policy.n_ioctls > 8 ? 64 : 8) && listed == nullptr; i++) {
                if (policy.ioctls[i].cmd == call.cmd) listed = &policy.ioctls[i];
            }
            if (listed == nullptr || call.nr != 16 || compat || kernel) return false;
            return listed->flags == 1 || (listed->flags == 2 && block_fits(policy, *listed, call));
        }
        case POSTERN_HOOK_MMAP: {
            const Span asked{call.args[5], static_cast<Wide>(call.args[5]) + call.args[1]};
            const bool known_flags = (call.args[3] & 3) != 2 && (call.args[3] & 1) != 0 &&
                                     (call.args[3] & ~0x11e053ULL) == 0 && call.args[3] == call.flags;
            return call.nr == 9 && !compat && !kernel && known_flags && prots < 4 &&
                   call.args[5] % 4096 == 0 && call.args[1] != 0 && call.args[1] <= ~0ULL - 4095 &&
                   some_window(4, read, write, [&](const postern_range&, Span span) {
                       const Span rounded = pages(span);
                       // All of 2^64 is no window, see postern_rounded_size().
                       return rounded.end - rounded.begin < kAll && rounded.holds(pages(asked));
                   });
        }
        case POSTERN_HOOK_MPROTECT: {
            const Wide start = static_cast<Wide>(call.vma_pgoff) * 4096;
            const Span asked{start, start + call.vma_length};
            return prots < 4 && start < kAll && call.vma_length != 0 &&
                   some_window(4, read, write, [&](const postern_range& window, Span span) {
                       const Span rounded = pages(span);
                       const Wide size = rounded.end - rounded.begin;
                       return size < kAll && Span{window.vma_offset, window.vma_offset + size}.holds(asked);
                   });
        }
        case POSTERN_HOOK_ACCESS: {
            const Span asked{call.args[3], static_cast<Wide>(call.args[3]) + call.args[2]};
            const bool reading = call.nr == 17 && call.mask == 4;
            const bool writing = call.nr == 18 && call.mask == 2;
            return (reading || writing) && (call.task & 7) == 0 && call.args[2] != 0 &&
                   some_window(8, reading, writing,
                               [&](const postern_range&, Span span) { return span.holds(asked); });
        }
        case POSTERN_HOOK_RECEIVE:
            return policy.forward == 2 || (policy.forward == 1 && (call.task & 8) != 0);
        default:
            return false;
    }
}

}  // namespace postern::test
