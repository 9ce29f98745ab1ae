// SPDX-License-Identifier: Apache-2.0
#include "launcher/compiled_run.h"

#include <unistd.h>

#include "launcher/cgroup.h"
#include "launcher/client_environment.h"
#include "launcher/landlock_plan.h"
#include "launcher/landlock_uapi.h"
#include "launcher/launch_cache.h"
#include "launcher/launch_file.h"
#include "launcher/report.h"
#include "launcher/supervise.h"

namespace postern {

void tell_landlock_gaps(const LandlockRules& rules) {
    if (!rules.is_asked_for()) return;
    for (const std::string& gap : landlock_gaps(rules, landlock::abi())) tell("postern: {}\n", gap);
}

int run_compiled(Supervisor& supervisor, StatusReport& status, const CompiledLaunch& launch, SandboxSpec spec,
                 const std::function<void(const RunningClient&)>& started) {
    std::optional<Cgroup> cgroup;
    if (!launch.cgroup_limits.empty()) {
        auto created = Cgroup::create(fmt::format("{}", ::getpid()), launch.cgroup_limits);
        if (!created) return report(created.error(), kLaunchFailed);
        spec.cgroup_fd = created->fd();
        cgroup.emplace(std::move(*created));
    }
    if (!launch.quiet) {
        for (const std::string& line : launch.weakenings) tell("{}", line);
        tell_landlock_gaps(spec.landlock);
    }
    auto client = start_sandbox(spec);
    if (!client) return report(client.error().error, client.error().exit_status);
    if (started) started(*client);
    return supervise(supervisor, status, std::move(*client),
                     {spec.namespaces,
                      cgroup ? cgroup->path() : "",
                      "",
                      spec.cgroup_fd,
                      !spec.seccomp.empty(),
                      false,
                      {}});
}

namespace {

/// With what a compiled launch leaves open: the command and the caller's environment.
int run_command(CompiledLaunch launch, const std::vector<std::string>& command) {
    SandboxSpec spec = std::move(launch.spec);
    spec.argv = command;
    spec.env = client_environment(launch.env_keep, launch.env_set, own_environment());
    auto supervisor = Supervisor::create();
    if (!supervisor) return report(supervisor.error(), kLaunchFailed);
    auto status = StatusReport::open(std::nullopt, std::nullopt);
    if (!status) return report(status.error(), kLaunchFailed);
    return run_compiled(*supervisor, *status, launch, std::move(spec));
}

}  // namespace

std::optional<int> run_kept(const LaunchKey& key) {
    const auto cache = LaunchCache::open();
    if (!cache) return std::nullopt;
    auto launch = cache->find(key.text);
    if (!launch) return std::nullopt;
    return run_command(std::move(*launch), key.command);
}

int run_launch_file(const LaunchFileRun& run) {
    auto launch = read_launch_file(run.file);
    if (!launch) return report(std::move(launch.error()).within("profile"), kLaunchFailed);
    if (run.quiet) launch->quiet = true;
    return run_command(std::move(*launch), run.command);
}

}  // namespace postern
