// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "broker-core/file.h"
#include "launcher/brokered_slices.h"
#include "launcher/commands.h"
#include "launcher/ctest_resources.h"
#include "launcher/job_list.h"
#include "launcher/job_pool.h"
#include "launcher/launch.h"
#include "launcher/local_slices.h"
#include "launcher/plain_slices.h"
#include "launcher/pool_jobs.h"
#include "launcher/pool_options.h"
#include "launcher/report.h"
#include "launcher/sandbox_from_profile.h"
#include "launcher/supervisor.h"

namespace postern {
namespace {

/// Says how one client ended where that is not well, and gives the worse of two statuses.
int worse(int status, unsigned slice, const ClientExit& exit, bool quiet) {
    if (exit.status() != 0 && !quiet) {
        const char* how = exit.kind == ClientExit::Kind::TimeLimit  ? "hit the time limit"
                          : exit.kind == ClientExit::Kind::CpuLimit ? "hit the limit of CPU time"
                          : exit.kind == ClientExit::Kind::Exited   ? "ended"
                                                                    : "was killed";
        tell("postern: slice {}: the client {}, status {}\n", slice, how, exit.status());
    }
    return std::max(status, exit.status());
}

Result<std::unique_ptr<SliceSource>> open_source(const PoolOptions& options, const Profile& profile,
                                                 const std::optional<BrokerPlace>& broker, GrantedFiles files,
                                                 Supervisor& supervisor) {
    if (broker) return BrokeredSlices::open(profile, options.device, *broker);
    if (options.device.empty() && files.empty()) {
        const unsigned places = options.has_jobs() ? options.at_once(profile) : profile.slices;
        return std::make_unique<PlainSlices>(places, cgroup_limits(profile));
    }
    if (options.has_jobs() && profile.device && profile.device->forward == Forward::Anyone) {
        return fail(
            "profile {}: device.forward is \"anyone\": a job could leave its files to somebody, who would "
            "keep "
            "the slice beside the next job; say \"sandbox\", or let `postern broker` hold the device, which "
            "gives no slice again before they are closed",
            profile.name);
    }
    return LocalSlices::open(profile, options.device, std::move(files), supervisor, options.quiet,
                             options.backend);
}

/// One client of `spec` in every slice at once: all or none.
int run_everywhere(Supervisor& supervisor, SliceSource& source, const Profile& profile,
                   const SandboxSpec& spec, bool quiet) {
    int worst = 0;                      // of the clients
    int failed = 0;                     // of postern itself, which counts for more
    std::map<size_t, unsigned> slices;  // by the supervisor's number
    while (slices.size() < profile.slices && failed == 0) {
        auto started = source.start(spec);
        if (!started) {
            failed = report(started.error().why.error, started.error().why.exit_status);
        } else if (!*started) {
            failed = report(Error{"not every slice is free, and this is for all of them at once", 0},
                            kLaunchFailed);
        } else {
            slices[supervisor.add(std::move((*started)->client))] = (*started)->slice;
        }
    }
    // One client less than asked for is not what was asked for.
    if (failed != 0) {
        for (const auto& [number, slice] : slices) supervisor.client(number)->kill();
    }
    while (supervisor.running() > 0) {
        auto ended = supervisor.wait_any();
        if (!ended) return report(ended.error(), kLaunchFailed);
        const unsigned slice = slices.at(ended->client);
        if (failed == 0) worst = worse(worst, slice, ended->exit, quiet);
        if (auto cleaned = source.end(slice); !cleaned) failed = report(cleaned.error(), kLaunchFailed);
    }
    if (auto closed = source.close(); !closed) failed = report(closed.error(), kLaunchFailed);
    return failed != 0 ? failed : worst;
}

int print_plan(const PoolOptions& options, const Profile& profile, const SandboxSpec& spec,
               const std::vector<Job>& jobs) {
    auto plan = forecast_plan(profile, options.device);
    if (!plan) return report(plan.error(), kLaunchFailed);
    Json text{
        {"postern", 1}, {"profile", profile.name}, {"device", *plan}, {"sandbox", describe_sandbox(spec)}};
    if (options.has_jobs()) {
        text["jobs"] = Json::array();
        for (const Job& job : jobs) text["jobs"].push_back({{"job", job.number}, {"command", job.command}});
    } else {
        text["command"] = spec.argv;
    }
    fmt::print("{}\n", text.dump(2));
    return 0;
}

int write_ctest_resources(const PoolOptions& options) {
    auto profile = options.load();
    if (!profile) return report(profile.error(), kLaunchFailed);
    auto spec = describe_for_ctest(options, *profile);
    if (!spec) return report(spec.error(), kLaunchFailed);
    const std::string text = spec->dump(2) + "\n";
    if (*options.ctest_resources == "-") return write_out(1, text) == 0 ? 0 : kLaunchFailed;
    if (auto written = replace_file(*options.ctest_resources, text); !written)
        return report(written.error(), kLaunchFailed);
    return 0;
}

int run_pool(PoolOptions& options, const CommandLine& words) {
    if (auto fits = options.check(words); !fits) return report(fits.error(), kLaunchFailed);
    if (options.ctest_resources) return write_ctest_resources(options);
    const auto broker = options.choose_broker();
    if (!broker) return report(broker.error(), kLaunchFailed);
    // A broker says by which one it has the device.
    if (!options.has_jobs() && options.profile.empty())
        return report(Error{"--profile is required; see `postern pool --help`", 0}, kLaunchFailed);
    auto profile = options.load();
    if (!profile) return report(profile.error(), kLaunchFailed);
    auto spec = sandbox_from_profile(*profile, own_environment());
    if (!spec) return report(spec.error(), kLaunchFailed);
    std::vector<Job> jobs;
    if (options.has_jobs()) {
        auto list = read_jobs(options, *profile, words);
        if (!list) return report(list.error(), kLaunchFailed);
        jobs = std::move(*list);
    } else {
        spec->argv = words;
        if (auto present = check_command(*spec); !present)
            return report(present.error().error, present.error().exit_status);
    }
    if (options.dry_run) return print_plan(options, *profile, *spec, jobs);

    auto files = GrantedFiles::open(*profile);
    if (!files) return report(files.error(), kLaunchFailed);
    if (options.has_jobs()) {
        if (auto ready = prepare_files(options); !ready) return report(ready.error(), kLaunchFailed);
    }
    auto supervisor = Supervisor::create();
    if (!supervisor) return report(supervisor.error(), kLaunchFailed);
    auto source = open_source(options, *profile, *broker, std::move(*files), *supervisor);
    if (!source) return report(source.error(), kLaunchFailed);
    options.print_weakenings(*profile);
    if (options.has_jobs()) return run_jobs(options, *profile, *supervisor, **source, *spec, jobs);
    return run_everywhere(*supervisor, **source, *profile, *spec, options.quiet);
}

}  // namespace

Command add_pool_command(CLI::App& app) {
    auto options = std::make_shared<PoolOptions>();
    CLI::App* command = app.add_subcommand(
        "pool", "run one client in every slice of a device at once, or a list of jobs over them");
    command->footer(
        "usage: postern pool --device BDF --profile NAME|FILE [sandbox flags] -- CMD [ARG…]\n"
        "       postern pool [options] --commands FILE|-\n"
        "       postern pool [options] -- [CMD [ARG…]] ::: VALUE…\n"
        "       postern pool --device BDF --profile NAME|FILE --ctest-resources [FILE]");
    options->add_to(*command);
    return [options](const CommandLine& rest) {
        options->job_arguments = is_job_list(rest);
        return run_pool(*options, rest);
    };
}

}  // namespace postern
