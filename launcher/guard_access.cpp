// SPDX-License-Identifier: Apache-2.0
#include "launcher/guard_access.h"

#include <unistd.h>

#include "broker-core/guard_support.h"

namespace postern {

Status need_root() {
    if (::geteuid() == 0) return {};
    return fail("the guard and its grants are root's to look at; run postern with sudo");
}

Result<GuardAccess> GuardAccess::open() {
    POSTERN_TRY(need_root());
    POSTERN_ASSIGN(GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(std::optional<GuardPins> pins, GuardPins::find(kBpffs));
    return GuardAccess{std::move(lock), std::move(pins)};
}

}  // namespace postern
