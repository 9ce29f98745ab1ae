// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/runner.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <thread>

namespace postern::hostile {
namespace {

/// What a child leaves behind, in memory that it shares with its parent: a pipe would be one more thing that
/// a sandbox might refuse.
struct Report {
    Attempt::State state;
    int errnum;
    char detail[256];
};

bool contains(const std::vector<int>& errnos, int errnum) {
    return std::find(errnos.begin(), errnos.end(), errnum) != errnos.end();
}

/// What the guard and the sandbox answer with.
bool is_refusal(int errnum) {
    return errnum == EPERM || errnum == EACCES || errnum == ENOSYS;
}

}  // namespace

Outcome run_in_child(const std::function<Attempt(const Target&)>& attempt, const Target& target,
                     std::chrono::seconds limit) {
    void* shared = mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return {.attempt = preparation_failed("mmap")};
    auto* report = static_cast<Report*>(shared);
    report->state = Attempt::State::Impossible;

    const pid_t child = fork();
    if (child < 0) {
        Attempt failure = preparation_failed("fork");
        munmap(shared, sizeof(Report));
        return {.attempt = failure};
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        Attempt result = attempt(target);
        report->errnum = result.errnum;
        result.detail.copy(report->detail, sizeof report->detail - 1);
        report->state = result.state;
        _exit(0);
    }

    Outcome outcome;
    int status = 0;
    const auto deadline = std::chrono::steady_clock::now() + limit;
    // Polled: the child must not be able to keep its parent waiting, and a timer of its own it could switch
    // off.
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (std::chrono::steady_clock::now() > deadline && !outcome.timed_out) {
            outcome.timed_out = true;
            kill(child, SIGKILL);
        }
        const timespec pause{0, 500'000};
        nanosleep(&pause, nullptr);
    }
    outcome.attempt = {report->state, report->errnum, report->detail};
    outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    munmap(shared, sizeof(Report));
    return outcome;
}

Verdict judge(const Probe& probe, const Outcome& outcome, const Target& target) {
    if (outcome.timed_out) return Verdict::Error;
    if (outcome.signal == SIGSYS) return Verdict::Refused;
    // int $0x80 without 32-bit emulation in the kernel.
    if (outcome.signal == SIGSEGV && probe.group == "compat") return Verdict::NotTried;
    if (outcome.signal != 0) return Verdict::Error;
    const int errnum = outcome.attempt.errnum;
    switch (outcome.attempt.state) {
        case Attempt::State::Succeeded:
            return !probe.ioctl.empty() && target.granted(probe.ioctl) ? Verdict::Granted : Verdict::Allowed;
        case Attempt::State::Nothing:
            return Verdict::NotTried;
        case Attempt::State::Impossible:
            return Verdict::Error;
        case Attempt::State::Failed:
            break;
    }
    if (contains(probe.passed, errnum)) return Verdict::Allowed;
    if (target.outside && contains(probe.inherent, errnum)) return Verdict::Inherent;
    if (is_refusal(errnum) || contains(probe.refusals, errnum)) return Verdict::Refused;
    if (!target.outside && probe.kernel_first && contains(probe.inherent, errnum)) return Verdict::Refused;
    return Verdict::Otherwise;
}

ControlState judge_control(const Probe& probe, const Outcome& outcome, const Target& target) {
    const Attempt& attempt = outcome.attempt;
    if (outcome.timed_out) return ControlState::Broken;
    if (outcome.signal != 0) {
        return outcome.signal == SIGSYS || probe.group == "compat" ? ControlState::Outside
                                                                   : ControlState::Broken;
    }
    if (attempt.state == Attempt::State::Succeeded) return ControlState::Works;
    if (attempt.state == Attempt::State::Nothing) return ControlState::Outside;
    if (attempt.state == Attempt::State::Impossible) return ControlState::Broken;
    // Inside, the whole mechanism may be what is refused (io_uring, ptrace).
    if (!target.outside && is_refusal(attempt.errnum)) return ControlState::Outside;
    return target.outside && contains(probe.inherent, attempt.errnum) ? ControlState::Unneeded
                                                                      : ControlState::Broken;
}

bool is_expected(const Finding& finding, const Target& target) {
    if (finding.control == ControlState::Broken) return false;
    switch (finding.verdict) {
        case Verdict::Refused:
            return !target.outside;
        case Verdict::Allowed:
        case Verdict::Inherent:
            return target.outside;
        case Verdict::NotTried:
        case Verdict::Granted:
            return true;
        case Verdict::Otherwise:
        case Verdict::Error:
            return false;
    }
    return false;
}

std::vector<Finding> run_probes(const Probes& probes, const Target& target, std::chrono::seconds limit,
                                std::chrono::milliseconds pause) {
    std::vector<Finding> findings(probes.size());
    for (const bool destructive : {false, true}) {
        for (size_t i = 0; i < probes.size(); ++i) {
            const Probe& probe = probes[i];
            if (probe.destructive != destructive) continue;
            Finding& finding = findings[i];
            finding.probe = &probe;
            // A granted reset is the profile's business, and no reason to take the device from other clients.
            if (destructive && !target.outside && target.granted(probe.ioctl)) {
                finding.outcome.attempt = nothing("the profile grants it");
            } else if (!probe.ioctl.empty() && target.ruled(probe.ioctl)) {
                finding.outcome.attempt = nothing("the profile grants it for some arguments");
            } else {
                std::this_thread::sleep_for(pause);
                finding.outcome = run_in_child(probe.attempt, target, limit);
            }
            finding.verdict = judge(probe, finding.outcome, target);
            if (finding.verdict == Verdict::NotTried || finding.verdict == Verdict::Granted) continue;
            if (!probe.control.run) {
                finding.control = ControlState::Outside;
                continue;
            }
            finding.control_outcome = run_in_child(probe.control.run, target, limit);
            finding.control = judge_control(probe, finding.control_outcome, target);
        }
    }
    return findings;
}

}  // namespace postern::hostile
