// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace postern {

/// Who may receive a guarded file from its client.
enum class Forward { Sandbox, Never, Anyone };

}  // namespace postern
