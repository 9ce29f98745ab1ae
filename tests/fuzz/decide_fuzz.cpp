// SPDX-License-Identifier: Apache-2.0
// The guard's decision, on policies and calls of arbitrary bytes, against the model.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tests/support/guard_model.h"
#include "tests/support/native_fetch.h"

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
    // Never more than the model; and not less, or clients would be refused what they were granted.
    if (allowed != postern::test::model_allows(policy, call)) std::abort();
    if (!allowed) {
        uint64_t request = 0;
        take(&request, sizeof request);
        (void)postern_restrict(&policy, request);
        if (postern_decide(&policy, &call) == POSTERN_ALLOW) std::abort();
    }
    std::free(block);
    return 0;
}
