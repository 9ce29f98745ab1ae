// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bpf/policy.h"

struct postern_call;

namespace postern::test {

/// What the guard should say, from its documentation: sets of bytes in 128 bits, and one way to allow each
/// call. Shares nothing with bpf/decide.h but the structs. Reads the argument block at `call.arg` as far as
/// it is sealed.
bool model_allows(const postern_policy& policy, const postern_call& call);

}  // namespace postern::test
