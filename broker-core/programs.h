// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "broker-core/guard_owner.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"

namespace postern {

/// Borrowed fds with their names, to be 3, 4, … in the program.
using BorrowedFds = std::vector<std::pair<std::string, int>>;

/// The file that a setup or teardown program's name means: an absolute path; else relative to the profile's
/// folder; else, without a slash, in examples/ or libexec/postern/ beside the program's own folder, or in
/// PATH.
[[nodiscard]] Result<std::string> find_program(const std::string& name, const std::string& folder);

/// What SIGINT, SIGTERM, SIGHUP and SIGQUIT do that are blocked and arrive while a program runs.
enum class ProgramSignals {
    End,   ///< they end it, and are taken: that is the error
    Wait,  ///< they wait, for a service that ends in order
};

/// Runs `line` in `folder` with `fds` passed by the sd_listen_fds(3) convention, and waits. What it prints,
/// on stdout too, goes to stderr, or to `output` where that is given; an exit status other than 0 is an error
/// with its last line. It dies with the caller. `mark`, if given, is put on it.
[[nodiscard]] Status run_program(const ProgramLine& line, const std::string& folder, const BorrowedFds& fds,
                                 std::string* output = nullptr, ProgramSignals signals = ProgramSignals::End,
                                 const ChildMark* mark = nullptr);

/// The last signal that killed a program so since the previous call, 0 if none did: run_program() took it, so
/// a caller that has other clients to pass it on to asks here.
[[nodiscard]] int take_interruption();

}  // namespace postern
