// SPDX-License-Identifier: Apache-2.0
// The guard's decision, on policies and calls of arbitrary bytes, against the model.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>

#include "tests/support/guard_model.h"
#include "tests/support/native_fetch.h"

namespace {

/// A list that is not in order is searched in vain, or finds an entry that the model does not look at first.
bool any_entry_allows(const postern_policy& policy, const postern_call& call) {
    for (uint32_t i = 0; i < POSTERN_MAX_IOCTLS; i++) {
        postern_policy alone = policy;
        alone.n_ioctls = POSTERN_MAX_IOCTLS;
        std::swap(alone.ioctls[0], alone.ioctls[i]);
        if (postern::test::model_allows(alone, call)) return true;
    }
    return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    postern_policy policy{};
    postern_call call{};
    const auto take = [&](void* into, size_t length) {
        const size_t taken = size < length ? size : length;
        std::memcpy(into, data, taken);
        data += taken;
        size -= taken;
    };
    take(&call, sizeof call);
    // Exactly as long as it is sealed, so that AddressSanitizer sees a byte too many.
    const size_t sealed = call.sealed % 257;
    auto* block = static_cast<uint8_t*>(std::calloc(1, sealed + (sealed == 0)));
    take(block, sealed);
    take(&policy, sizeof policy);
    call.arg = reinterpret_cast<uint64_t>(block);
    call.sealed = sealed;
    const bool allowed = postern_decide(&policy, &call) == POSTERN_ALLOW;
    const bool in_order = std::is_sorted(
        std::begin(policy.ioctls), std::end(policy.ioctls),
        [](const postern_ioctl_entry& a, const postern_ioctl_entry& b) { return a.cmd <= b.cmd; });
    // Never more than some entry would allow; and not less, or clients would be refused what they were
    // granted.
    const bool model = postern::test::model_allows(policy, call);
    if (call.hook != POSTERN_HOOK_IOCTL || in_order ? allowed != model
                                                    : allowed && !any_entry_allows(policy, call))
        std::abort();
    if (!allowed) {
        uint64_t request = 0;
        take(&request, sizeof request);
        (void)postern_restrict(&policy, request);
        if (postern_decide(&policy, &call) == POSTERN_ALLOW) std::abort();
    }
    std::free(block);
    return 0;
}
