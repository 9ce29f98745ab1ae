// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "tests/hostile/probe.h"

namespace postern::hostile {

/// What became of the process that made an attempt.
struct Outcome {
    Attempt attempt;
    int signal = 0;          ///< that ended it, 0 if none: SIGSYS is seccomp's
    bool timed_out = false;  ///< it was killed because it took too long
};

/// Runs `attempt` in a forked child, which may be killed, hang, or change what it likes of itself.
[[nodiscard]] Outcome run_in_child(const std::function<Attempt(const Target&)>& attempt, const Target& target,
                                   std::chrono::seconds limit);

enum class Verdict {
    Refused,    ///< by the guard, the sandbox, or a kernel rule that comes before both
    Allowed,    ///< it worked, or failed behind the permission check
    Otherwise,  ///< denied, with an errno that is no refusal: the guard did not decide this
    Inherent,   ///< outside only: the kernel or the device refuses everybody, as the probe says
    Error,      ///< could not be tried, or hung
    NotTried,   ///< nothing of the kind in this profile
    Granted,    ///< the profile lists it, and it works
};

enum class ControlState {
    Works,
    Outside,  ///< it cannot run in here, or there is none: --expect allowed must show that the probe is sound
    Broken,   ///< it failed where it should work: the refusal proves nothing
    Unneeded,
};

struct Finding {
    const Probe* probe = nullptr;
    Outcome outcome;
    Verdict verdict = Verdict::Error;
    Outcome control_outcome;
    ControlState control = ControlState::Unneeded;
};

/// Pure: what an outcome means for this probe.
[[nodiscard]] Verdict judge(const Probe& probe, const Outcome& outcome, const Target& target);
/// Pure: what the outcome of its control means.
[[nodiscard]] ControlState judge_control(const Probe& probe, const Outcome& outcome, const Target& target);

/// Whether a finding is as it should be: refused inside, allowed (or inherent) outside, the control sound.
[[nodiscard]] bool is_expected(const Finding& finding, const Target& target);

/// Runs each probe, after a pause, and its control; destructive ones last. In the order of `probes`, which
/// must outlive the result.
[[nodiscard]] std::vector<Finding> run_probes(const Probes& probes, const Target& target,
                                              std::chrono::seconds limit, std::chrono::milliseconds pause);

}  // namespace postern::hostile
