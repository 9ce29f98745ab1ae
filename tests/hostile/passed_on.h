// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace postern::hostile {

/// First argument of the program when it has exec'ed itself: then come an action, an fd and the action's
/// object.
inline constexpr char kPassedOnFlag[] = "--passed-on";

/// What the exec'ed image does: "ioctl" asks the question named `object` of the fd, "mmap" maps the page of
/// the fd at byte `object`, "nothing" does that. Returns the exit status for the waiting probe: 0, the errno,
/// or 255.
[[nodiscard]] int passed_on(const std::string& action, const std::string& fd_text, const std::string& object);

}  // namespace postern::hostile
