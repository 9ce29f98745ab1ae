// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/empty_programs.h"

#include <empty.skel.h>

namespace postern::cost {

void EmptyPrograms::Destroy::operator()(empty_bpf* programs) const {
    ::empty_bpf__destroy(programs);
}

Result<EmptyPrograms> EmptyPrograms::attach() {
    Handle programs(::empty_bpf__open_and_load());
    if (!programs) {
        const int error = errno;
        return fail_errno(error, "the empty programs cannot be loaded");
    }
    if (const int error = -::empty_bpf__attach(programs.get()); error != 0) {
        return fail_errno(error, "the empty programs cannot be attached");
    }
    return EmptyPrograms(std::move(programs));
}

}  // namespace postern::cost
