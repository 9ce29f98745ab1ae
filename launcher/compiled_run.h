// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "launcher/compiled_launch.h"
#include "launcher/launch_key.h"
#include "launcher/sandbox.h"
#include "launcher/status_report.h"
#include "launcher/supervisor.h"

namespace postern {

/// A line on stderr for each of the rules that this kernel cannot enforce. Costs no system call where none
/// were asked for.
void tell_landlock_gaps(const LandlockRules& rules);

/// Runs the client of `spec`, which is that of `launch` with what it leaves open, to its end; its exit
/// status. `started`, if given, is called when it runs.
int run_compiled(Supervisor& supervisor, StatusReport& status, const CompiledLaunch& launch, SandboxSpec spec,
                 const std::function<void(const RunningClient&)>& started = {});

/// `postern run` as it was compiled before; nullopt: it was not.
[[nodiscard]] std::optional<int> run_kept(const LaunchKey& key);

/// As `postern profile compile` has compiled it.
[[nodiscard]] int run_launch_file(const LaunchFileRun& run);

}  // namespace postern
