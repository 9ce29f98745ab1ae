// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <optional>

#include "broker-core/manifest.h"
#include "broker-core/pci.h"
#include "launcher/brokered.h"
#include "launcher/commands.h"
#include "launcher/compiled_run.h"
#include "launcher/ctest_resources.h"
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
    std::optional<uint64_t> slice;  ///< without: the first, or any free one of a broker's
    bool wait = false;
    std::string broker = "auto";
    bool ctest = false;
    std::optional<int> info_fd;
    std::optional<int> status_fd;
    bool notify = false;
};

int print_plan(const RunOptions& options, const Profile& profile, const SandboxSpec& spec) {
    auto device = forecast_plan(profile, options.device);
    if (!device) return report(device.error(), kLaunchFailed);
    const std::vector<std::string> steps = describe_sandbox(spec);
    if (options.json) {
        const Json plan{{"postern", 1},
                        {"profile", profile.name},
                        {"slice", options.slice.value_or(0)},
                        {"command", spec.argv},
                        {"device", *device},
                        {"files", plan_files(profile, static_cast<unsigned>(options.slice.value_or(0)))},
                        {"sandbox", steps},
                        {"weakens", weakenings(profile)}};
        fmt::print("{}\n", plan.dump(2));
        return 0;
    }
    if (!device->is_null()) fmt::print("Device, as sysfs forecasts it:\n{}\n\n", device->dump(2));
    for (const FileProfile& file : profile.files) fmt::print("{}\n", explain_file(file, profile.slices));
    fmt::print("Sandbox{}:\n",
               options.device.empty() ? "" : fmt::format(" of slice {}", options.slice.value_or(0)));
    for (const std::string& step : steps) fmt::print("  {}\n", step);
    return 0;
}

/// Waits for the client of a grant, and tells the journal of both.
int supervise_granted(Supervisor& supervisor, StatusReport& report_to, RunningClient client,
                      const GrantNames& names, ClientPlace place) {
    const GrantLog log(names);
    const std::string where =
        names.device.empty() ? "" : fmt::format(" on slice {} of {}", names.slice, names.device);
    log.say(GrantLog::Level::Info,
            fmt::format("client {} runs{}, profile {}", client.identity().pid, where, names.profile));
    place.say = [&](const std::string& line) { return log.say(GrantLog::Level::Warning, line); };
    const int status = supervise(supervisor, report_to, std::move(client), place);
    log.say(GrantLog::Level::Info, fmt::format("the client has ended, status {}", status));
    return status;
}

int run_on_grant(Supervisor& supervisor, StatusReport& report_to, const RunOptions& options,
                 const Profile& profile, const SandboxSpec& spec, GrantedFiles files, NotifyRelay* relay) {
    auto broker = LocalBroker::open(profile, options.device, std::move(files), options.backend);
    if (!broker) return report(broker.error(), kLaunchFailed);
    options.print_weakenings(profile);
    RefusalReport refusals(supervisor, RefusalReport::Clients::One);
    if (!options.quiet) broker->tell(refusals);
    const auto slice = static_cast<unsigned>(options.slice.value_or(0));
    auto client = broker->start(slice, spec);
    int status = 0;
    if (client) {
        if (relay != nullptr) relay->begin(supervisor, *client);
        const LocalBroker::Place place = broker->place_of(slice);
        status = supervise_granted(
            supervisor, report_to, std::move(*client),
            {place.grant, options.device, options.device.empty() ? "" : std::to_string(slice), profile.name},
            {spec.namespaces,
             place.cgroup->path(),
             place.grant,
             place.cgroup->fd(),
             !spec.seccomp.empty(),
             false,
             {}});
    } else {
        status = report(client.error().error, client.error().exit_status);
    }
    for (auto ended : {broker->end(slice), broker->close()}) {
        // The client's own failure is the more telling one.
        if (!ended) status = report(ended.error(), status == 0 ? kLaunchFailed : status);
    }
    return status;
}

/// Takes the slice, and the device if none was named, that CTest has allotted to this test.
Status take_allotted(RunOptions& options) {
    POSTERN_ASSIGN(const CtestSlice allotted,
                   allotted_slice([](const std::string& name) -> std::optional<std::string> {
                       const char* value = std::getenv(name.c_str());
                       return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
                   }));
    options.slice = allotted.slice;
    // The test that had it before has ended, and its broker may not have cleaned up yet.
    options.wait = true;
    if (options.device.empty()) {
        options.device = allotted.device;
    } else if (!allotted.device.empty()) {
        POSTERN_ASSIGN(const std::string named, parse_bdf(options.device));
        if (named != allotted.device)
            return fail("--ctest: CTest has allotted a slice of {}, and --device says {}", allotted.device,
                        named);
    }
    return {};
}

/// The client of a grant that somebody else holds. This process has been moved into the grant's cgroup, and
/// the client is born there.
int run_brokered(Supervisor& supervisor, StatusReport& report_to, const RunOptions& options,
                 const Profile& profile, SandboxSpec spec, const BrokerPlace& broker, NotifyRelay* relay) {
    options.print_weakenings(profile);
    std::optional<unsigned> slice;
    if (options.slice) slice = static_cast<unsigned>(*options.slice);
    std::optional<int> signal;
    auto grant =
        ask_for_grant(broker.socket, grant_request(profile, options.device, slice, options.wait), [&] {
            while (auto taken = supervisor.take_signal()) {
                if (supervisor.asked_to_end()) signal = taken;
            }
            return signal.has_value();
        });
    if (!grant) return report(grant.error().error, signal ? 128 + *signal : kLaunchFailed);
    for (const NamedFd& each : grant->fds) spec.fds.push_back({each.fd.get(), each.name});
    auto client = start_sandbox(spec);
    if (!client) return report(client.error().error, client.error().exit_status);
    // The client's alone from here on, so that its end is theirs.
    grant->fds.clear();
    if (relay != nullptr) relay->begin(supervisor, *client);
    const UniqueFd cgroup(::open(grant->cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return supervise_granted(
        supervisor, report_to, std::move(*client),
        {grant->id, grant->device, std::to_string(grant->slice), profile.name},
        {spec.namespaces, grant->cgroup, grant->id, cgroup.get(), !spec.seccomp.empty(), false, {}});
}

int run(RunOptions options, const std::optional<LaunchKey>& key, const CommandLine& command) {
    // Before postern has fds of its own that could pass for the caller's.
    auto status = StatusReport::open(options.info_fd, options.status_fd);
    if (!status) return report(status.error(), kLaunchFailed);
    if (options.ctest) {
        if (auto taken = take_allotted(options); !taken) return report(taken.error(), kLaunchFailed);
    }
    const auto broker = options.choose_broker();
    if (!broker) return report(broker.error(), kLaunchFailed);
    std::vector<ReadFile> read;
    auto profile = options.load(&read);
    if (!profile) return report(profile.error(), kLaunchFailed);
    if (auto slice = check_slice(*profile, options.slice.value_or(0)); !slice)
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
    if (*broker)
        return run_brokered(*supervisor, *status, options, *profile, std::move(*spec), **broker, relay.get());
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
    CLI::Option* slice =
        command
            ->add_option("--slice", options->slice,
                         "slice of the device; without, the first, or any free one of a broker's device")
            ->type_name("N");
    command
        ->add_flag("--ctest", options->ctest,
                   "the slice, and the device, that CTest has allotted to this test (see postern pool "
                   "--ctest-resources)")
        ->excludes(slice);
    command->add_flag("--wait", options->wait, "wait until the broker has a slice free");
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
