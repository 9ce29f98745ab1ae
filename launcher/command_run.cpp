// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "broker-core/manifest.h"
#include "launcher/commands.h"
#include "launcher/compiled_run.h"
#include "launcher/explain.h"
#include "launcher/grant_log.h"
#include "launcher/launch.h"
#include "launcher/launch_cache.h"
#include "launcher/launch_key.h"
#include "launcher/launch_options.h"
#include "launcher/notify_relay.h"
#include "launcher/refusal_report.h"
#include "launcher/sandbox_from_profile.h"
#include "launcher/status_report.h"
#include "launcher/supervise.h"
#include "launcher/supervisor.h"

namespace postern {
namespace {

struct RunOptions : LaunchOptions {
    uint64_t slice = 0;
    std::optional<int> info_fd;
    std::optional<int> status_fd;
    bool notify = false;
};

int print_plan(const RunOptions& options, const Profile& profile, const SandboxSpec& spec) {
    auto device = forecast_plan(profile, options.device);
    if (!device) return report(device.error(), kLaunchFailed);
    const std::vector<std::string> steps = describe_sandbox(spec);
    if (options.json) {
        const Json plan{
            {"postern", 1},           {"profile", profile.name},
            {"slice", options.slice}, {"command", spec.argv},
            {"device", *device},      {"files", plan_files(profile, static_cast<unsigned>(options.slice))},
            {"sandbox", steps},       {"weakens", weakenings(profile)}};
        fmt::print("{}\n", plan.dump(2));
        return 0;
    }
    if (!device->is_null()) fmt::print("Device, as sysfs forecasts it:\n{}\n\n", device->dump(2));
    for (const FileProfile& file : profile.files) fmt::print("{}\n", explain_file(file, profile.slices));
    fmt::print("Sandbox{}:\n", options.device.empty() ? "" : fmt::format(" of slice {}", options.slice));
    for (const std::string& step : steps) fmt::print("  {}\n", step);
    return 0;
}

std::string start_line(const RunOptions& options, const Profile& profile, const RunningClient& client) {
    const std::string where =
        options.device.empty() ? "" : fmt::format(" on slice {} of {}", options.slice, options.device);
    return fmt::format("client {} runs{}, profile {}", client.identity().pid, where, profile.name);
}

int run_on_grant(Supervisor& supervisor, StatusReport& report_to, const RunOptions& options,
                 const Profile& profile, const SandboxSpec& spec, GrantedFiles files, NotifyRelay* relay) {
    auto broker = LocalBroker::open(profile, options.device, std::move(files));
    if (!broker) return report(broker.error(), kLaunchFailed);
    options.print_weakenings(profile);
    RefusalReport refusals(supervisor, RefusalReport::Clients::One);
    if (!options.quiet) broker->tell(refusals);
    const auto slice = static_cast<unsigned>(options.slice);
    auto client = broker->start(slice, spec);
    int status = 0;
    if (client) {
        if (relay != nullptr) relay->begin(supervisor, *client);
        const LocalBroker::Place place = broker->place_of(slice);
        const GrantLog log(
            {place.grant, options.device, options.device.empty() ? "" : std::to_string(slice), profile.name});
        log.say(GrantLog::Level::Info, start_line(options, profile, *client));
        status = supervise(
            supervisor, report_to, std::move(*client),
            {spec.namespaces, place.cgroup->path(), place.grant, place.cgroup->fd(), !spec.seccomp.empty(),
             false, [&](const std::string& line) { return log.say(GrantLog::Level::Warning, line); }});
        log.say(GrantLog::Level::Info, fmt::format("the client has ended, status {}", status));
    } else {
        status = report(client.error().error, client.error().exit_status);
    }
    for (auto ended : {broker->end(slice), broker->close()}) {
        // The client's own failure is the more telling one.
        if (!ended) status = report(ended.error(), status == 0 ? kLaunchFailed : status);
    }
    return status;
}

int run(const RunOptions& options, const std::optional<LaunchKey>& key, const CommandLine& command) {
    // Before postern has fds of its own that could pass for the caller's.
    auto status = StatusReport::open(options.info_fd, options.status_fd);
    if (!status) return report(status.error(), kLaunchFailed);
    std::vector<ReadFile> read;
    auto profile = options.load(&read);
    if (!profile) return report(profile.error(), kLaunchFailed);
    if (auto slice = check_slice(*profile, options.slice); !slice)
        return report(slice.error(), kLaunchFailed);
    auto spec = sandbox_from_profile(*profile, own_environment(), &read);
    if (!spec) return report(spec.error(), kLaunchFailed);
    spec->argv = command;
    spec->tell_namespaces = status->is_wanted();
    if (auto present = check_command(*spec); !present)
        return report(present.error().error, present.error().exit_status);
    if (options.dry_run) return print_plan(options, *profile, *spec);

    // The same goes for these.
    auto files = GrantedFiles::open(*profile);
    if (!files) return report(files.error(), kLaunchFailed);
    // Before anything else is begun: from here on a signal ends what was begun in order.
    auto supervisor = Supervisor::create();
    if (!supervisor) return report(supervisor.error(), kLaunchFailed);
    std::unique_ptr<NotifyRelay> relay;
    if (options.notify) {
        auto opened = NotifyRelay::open();
        if (!opened) return report(opened.error(), kLaunchFailed);
        relay = std::move(*opened);
        if (auto added = relay->add_to(*spec); !added) return report(added.error(), kLaunchFailed);
    }
    if (options.device.empty() && files->empty()) {
        CompiledLaunch launch = compile_launch(*profile, *spec, options.spoken_weakenings(*profile));
        launch.quiet = options.quiet;
        if (key) {
            if (const auto cache = LaunchCache::open()) cache->keep(key->text, read, launch);
        }
        return run_compiled(*supervisor, *status, launch, std::move(*spec), [&](const RunningClient& client) {
            if (relay) relay->begin(*supervisor, client);
        });
    }
    return run_on_grant(*supervisor, *status, options, *profile, *spec, std::move(*files), relay.get());
}

}  // namespace

Command add_run_command(CLI::App& app, const std::optional<LaunchKey>& key) {
    auto options = std::make_shared<RunOptions>();
    CLI::App* command =
        app.add_subcommand("run", "run one client in a sandbox, with a slice of a device or without one");
    command->footer(
        "usage: postern run [--device BDF] [--profile NAME|FILE] [--slice N] [sandbox flags] -- CMD [ARG…]");
    options->add_to(*command);
    command->add_option("--slice", options->slice, "slice of the device, 0 without")->type_name("N");
    command
        ->add_option("--info-fd", options->info_fd,
                     "write the pid and the namespaces to this open file, in JSON, when the client runs")
        ->type_name("FD");
    command
        ->add_option("--json-status-fd", options->status_fd,
                     "write a line in JSON when the client runs, and one at its end: status and reason")
        ->type_name("FD");
    command->add_flag("--notify", options->notify,
                      "tell the service manager what the client says of itself: ready, status, watchdog "
                      "(sd_notify(3))");
    return [options, key](const CommandLine& rest) { return run(*options, key, rest); };
}

}  // namespace postern
