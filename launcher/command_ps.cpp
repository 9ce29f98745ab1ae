// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>

#include "broker-core/boot_clock.h"
#include "broker-core/guard_cgroup.h"
#include "broker-core/json_reader.h"
#include "broker-core/live_grant.h"
#include "launcher/commands.h"
#include "launcher/guard_access.h"

namespace postern {
namespace {

struct Row {
    LiveGrant grant;
    std::vector<pid_t> clients;
    std::string since;
};

Result<std::vector<Row>> read_rows() {
    POSTERN_ASSIGN(const GuardAccess guard, GuardAccess::open());
    std::vector<Row> rows;
    if (!guard.pins) return rows;
    POSTERN_ASSIGN(const auto files, guard.pins->files());
    const int64_t ahead = realtime_ahead();
    for (LiveGrant& grant : live_grants(files)) {
        std::vector<pid_t> clients;
        if (grant.sandbox != 0) {
            POSTERN_ASSIGN(clients, cgroup_processes(grant.sandbox));
        }
        std::string since = utc_text(static_cast<int64_t>(grant.since) + ahead);
        rows.push_back({std::move(grant), std::move(clients), std::move(since)});
    }
    return rows;
}

int list(bool json) {
    const auto rows = read_rows();
    if (!rows) return report(rows.error(), kFailed);
    if (json) {
        Json all = Json::array();
        for (const Row& row : *rows) {
            all.push_back({{"grant", row.grant.id},
                           {"device", row.grant.device},
                           {"profile", row.grant.profile},
                           {"slice", row.grant.slice},
                           {"launcher", row.grant.launcher},
                           {"clients", row.clients},
                           {"since", row.since},
                           {"refused", row.grant.refused},
                           {"files", row.grant.files.size()},
                           {"revoked", row.grant.revoked}});
        }
        fmt::print("{}\n", all.dump(2));
        return 0;
    }
    fmt::print("{:<17} {:<13} {:<20} {:>5} {:>8} {:>8}  {:<24} {}\n", "grant", "device", "profile", "slice",
               "launcher", "refused", "since", "clients");
    for (const Row& row : *rows) {
        fmt::print("{:<17} {:<13} {:<20} {:>5} {:>8} {:>8}  {:<24} {}{}\n", row.grant.id, row.grant.device,
                   row.grant.profile, row.grant.slice, row.grant.launcher, row.grant.refused, row.since,
                   row.clients.empty() ? "-" : fmt::format("{}", fmt::join(row.clients, " ")),
                   row.grant.revoked ? " (revoked)" : "");
    }
    return 0;
}

}  // namespace

Command add_ps_command(CLI::App& app) {
    auto json = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand(
        "ps", "live grants: device, slice, launcher, clients, since when, how many calls were refused");
    command->add_flag("--json", *json, "as JSON");
    return [json](const CommandLine&) { return list(*json); };
}

}  // namespace postern
