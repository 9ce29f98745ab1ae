// SPDX-License-Identifier: Apache-2.0
#include "launcher/supervise.h"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <optional>

#include "launcher/cgroup_events.h"
#include "launcher/exit_reason.h"
#include "launcher/forbidden_call.h"
#include "launcher/report.h"

namespace postern {
namespace {

/// How long the kernel's log may take to have what a client was killed for.
constexpr std::chrono::milliseconds kLogPatience{1000};
/// The same where there is no filter of postern's: it may have nothing.
constexpr std::chrono::milliseconds kNotOurs{100};

}  // namespace

int supervise(Supervisor& supervisor, StatusReport& status, RunningClient client, const ClientPlace& place) {
    const pid_t pid = client.identity().pid;
    const auto age = std::chrono::steady_clock::now() - client.started();
    const auto started = std::chrono::system_clock::now() -
                         std::chrono::duration_cast<std::chrono::system_clock::duration>(age);
    status.started({&client, place.namespaces, place.cgroup, place.grant, place.child_is_client});
    supervisor.add(std::move(client));
    auto ended = supervisor.wait_any();
    if (!ended) return report(ended.error(), kLaunchFailed);
    ExitEvidence evidence{read_cgroup_events(place.cgroup_fd), std::nullopt, place.has_filter};
    if (ended->exit.kind == ClientExit::Kind::Signaled && ended->exit.value == SIGSYS)
        evidence.call = find_forbidden_call(pid, started, place.has_filter ? kLogPatience : kNotOurs);
    const ExitReason reason = find_exit_reason(ended->exit, evidence);
    for (const std::string& line : exit_messages(reason, evidence.events)) {
        if (!place.say || !place.say(line)) tell("postern: {}\n", line);
    }
    status.ended(ended->exit.status(), reason);
    return ended->exit.status();
}

}  // namespace postern
