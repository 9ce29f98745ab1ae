// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "launcher/commands.h"
#include "launcher/launch.h"
#include "launcher/launch_options.h"
#include "launcher/refusal_report.h"
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

int run_pool(const LaunchOptions& options, const CommandLine& command) {
    auto profile = options.load();
    if (!profile) return report(profile.error(), kLaunchFailed);
    auto spec = sandbox_from_profile(*profile, own_environment());
    if (!spec) return report(spec.error(), kLaunchFailed);
    spec->argv = command;
    if (auto present = check_command(*spec); !present)
        return report(present.error().error, present.error().exit_status);
    if (options.dry_run) {
        auto plan = forecast_plan(*profile, options.device);
        if (!plan) return report(plan.error(), kLaunchFailed);
        fmt::print("{}\n", Json{{"postern", 1},
                                {"profile", profile->name},
                                {"command", command},
                                {"device", *plan},
                                {"sandbox", describe_sandbox(*spec)}}
                               .dump(2));
        return 0;
    }

    auto files = GrantedFiles::open(*profile);
    if (!files) return report(files.error(), kLaunchFailed);
    auto supervisor = Supervisor::create();
    if (!supervisor) return report(supervisor.error(), kLaunchFailed);
    auto broker = LocalBroker::open(*profile, options.device, std::move(*files));
    if (!broker) return report(broker.error(), kLaunchFailed);
    options.print_weakenings(*profile);
    RefusalReport refusals(*supervisor, RefusalReport::Clients::Many);
    if (!options.quiet) broker->tell(refusals);
    int worst = 0;                      // of the clients
    int failed = 0;                     // of postern itself, which counts for more
    std::map<size_t, unsigned> slices;  // by the supervisor's number
    for (unsigned slice = 0; slice < profile->slices && failed == 0; ++slice) {
        auto client = broker->start(slice, *spec);
        if (client) {
            slices[supervisor->add(std::move(*client))] = slice;
        } else {
            failed = report(client.error().error, client.error().exit_status);
        }
    }
    // One client less than asked for is not what was asked for: all or none.
    if (failed != 0) {
        for (const auto& [number, slice] : slices) supervisor->client(number)->kill();
    }
    while (supervisor->running() > 0) {
        auto ended = supervisor->wait_any();
        if (!ended) return report(ended.error(), kLaunchFailed);
        const unsigned slice = slices.at(ended->client);
        if (failed == 0) worst = worse(worst, slice, ended->exit, options.quiet);
        if (auto cleaned = broker->end(slice); !cleaned) failed = report(cleaned.error(), kLaunchFailed);
    }
    if (auto closed = broker->close(); !closed) failed = report(closed.error(), kLaunchFailed);
    return failed != 0 ? failed : worst;
}

}  // namespace

Command add_pool_command(CLI::App& app) {
    auto options = std::make_shared<LaunchOptions>();
    CLI::App* command =
        app.add_subcommand("pool", "run one client in every slice of a device at once, from one broker");
    command->footer("usage: postern pool --device BDF --profile NAME|FILE [sandbox flags] -- CMD [ARG…]");
    options->add_to(*command);
    command->get_option("--device")->required();
    command->get_option("--profile")->required();
    return [options](const CommandLine& rest) { return run_pool(*options, rest); };
}

}  // namespace postern
