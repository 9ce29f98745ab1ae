// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace postern {

/// Puts something that can be neither read nor written in the place of each of stdin, stdout and stderr that
/// is closed, so that no file of postern's gets its number, and what is said on stderr goes to nobody instead
/// of there. Closed again by exec: clients see what the caller has left them. For the beginning of main().
void hold_standard_fds();

}  // namespace postern
