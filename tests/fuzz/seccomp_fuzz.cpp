// SPDX-License-Identifier: Apache-2.0
// An OCI seccomp profile of arbitrary bytes is compiled or refused.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "launcher/seccomp_filter.h"
#include "launcher/seccomp_profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto profile = postern::parse_seccomp_profile({reinterpret_cast<const char*>(data), size},
                                                        {{"CAP_SYS_ADMIN"}, 6, 1});
    if (!profile) return 0;
    const auto program = postern::compile_seccomp_filter(*profile);
    // BPF_MAXINSNS: what the kernel takes; an empty program would mean "no filter".
    if (program && (program->empty() || program->size() > 4096)) std::abort();
    return 0;
}
