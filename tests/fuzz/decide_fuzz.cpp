// SPDX-License-Identifier: Apache-2.0
// The guard's decision against a model that shares no code with it: exact arithmetic in 128 bits, one window
// at a time.
#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" {
#include <linux/types.h>
}
#include "bpf/decide.h"
#include "tests/support/native_fetch.h"

namespace {

using Wide = unsigned __int128;

bool window_has(const postern_range& window, Wide begin, Wide end, uint32_t needed, Wide base, bool pages) {
    const Wide last = static_cast<Wide>(window.offset) + window.length;
    if (window.length == 0 || last > (static_cast<Wide>(1) << 64)) return false;
    const Wide inside_page = pages ? window.offset % 4096 : 0;
    const Wide size = pages ? (inside_page + window.length + 4095) / 4096 * 4096 : window.length;
    if (size >= (static_cast<Wide>(1) << 64)) return false;
    return begin < end && begin >= base && end <= base + size && (window.flags & needed) == needed;
}

bool model(const postern_policy& policy, const postern_call& call) {
    const bool bad_task =
        (call.task & (POSTERN_TASK_COMPAT | POSTERN_TASK_KERNEL)) != 0 || (call.task & ~15U) != 0;
    const uint64_t prot = call.reqprot | call.prot;
    const auto access = [](uint64_t bits) -> uint32_t {
        return ((bits & 1) != 0 ? POSTERN_WINDOW_READ : 0U) | ((bits & 2) != 0 ? POSTERN_WINDOW_WRITE : 0U);
    };
    const uint32_t windows = policy.n_windows < POSTERN_MAX_WINDOWS ? policy.n_windows : POSTERN_MAX_WINDOWS;
    switch (call.hook) {
        case POSTERN_HOOK_IOCTL:
            if (bad_task || call.nr != 16) return false;
            for (uint32_t i = 0; i < policy.n_ioctls && i < POSTERN_MAX_IOCTLS; ++i) {
                if (policy.ioctls[i].cmd == call.cmd) return true;
            }
            return false;
        case POSTERN_HOOK_MMAP: {
            const uint64_t type = call.args[3] & 15;
            const uint64_t all = prot | call.args[2];
            if (bad_task || call.nr != 9 || (type != 1 && type != 3) ||
                (call.args[3] & ~0x11e05fULL & ~0x40ULL) != 0)
                return false;
            if (call.args[3] != call.flags || (all & ~3ULL) != 0 || call.args[5] % 4096 != 0) return false;
            const Wide end = call.args[5] + (static_cast<Wide>(call.args[1]) + 4095) / 4096 * 4096;
            for (uint32_t i = 0; i < windows; ++i) {
                const postern_range& window = policy.windows[i];
                if (window_has(window, call.args[5], end, POSTERN_WINDOW_MMAP | access(all),
                               window.offset / 4096 * 4096, true))
                    return true;
            }
            return false;
        }
        case POSTERN_HOOK_MPROTECT: {
            if ((call.task & ~15U) != 0 || (prot & ~3ULL) != 0) return false;
            const Wide begin = static_cast<Wide>(call.vma_pgoff) * 4096;
            if (begin >= (static_cast<Wide>(1) << 64)) return false;
            for (uint32_t i = 0; i < windows; ++i) {
                const postern_range& window = policy.windows[i];
                if (window_has(window, begin, begin + call.vma_length, POSTERN_WINDOW_MMAP | access(prot),
                               window.vma_offset, true))
                    return true;
            }
            return false;
        }
        case POSTERN_HOOK_ACCESS: {
            if (bad_task || (call.task & POSTERN_TASK_IO_URING) != 0) return false;
            const bool read = call.nr == 17 && call.mask == 4;
            const bool write = call.nr == 18 && call.mask == 2;
            if (!read && !write) return false;
            for (uint32_t i = 0; i < windows; ++i) {
                const postern_range& window = policy.windows[i];
                if (window_has(window, call.args[3], static_cast<Wide>(call.args[3]) + call.args[2],
                               POSTERN_WINDOW_PREAD | (read ? POSTERN_WINDOW_READ : POSTERN_WINDOW_WRITE),
                               window.offset, false)) {
                    return true;
                }
            }
            return false;
        }
        case POSTERN_HOOK_RECEIVE:
            if ((call.task & ~15U) != 0) return false;
            return policy.forward == POSTERN_FORWARD_ANYONE ||
                   (policy.forward == POSTERN_FORWARD_SANDBOX && (call.task & POSTERN_TASK_IN_SANDBOX) != 0);
        default:
            return false;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    postern_policy policy{};
    postern_call call{};
    if (size < sizeof call) return 0;
    std::memcpy(&call, data, sizeof call);
    data += sizeof call;
    size -= sizeof call;
    std::memcpy(&policy, data, size < sizeof policy ? size : sizeof policy);
    const bool allowed = postern_decide(&policy, &call) == POSTERN_ALLOW;
    // Never more than the model; and not less, or clients would be refused what they were granted.
    if (allowed != model(policy, call)) std::abort();
    return 0;
}
