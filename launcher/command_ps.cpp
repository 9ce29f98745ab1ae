// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "broker-core/boot_clock.h"
#include "broker-core/guard_cgroup.h"
#include "broker-core/json_reader.h"
#include "broker-core/live_grant.h"
#include "launcher/brokered.h"
#include "launcher/commands.h"
#include "launcher/guard_access.h"

namespace postern {
namespace {

struct Row {
    LiveGrant grant;
    std::vector<pid_t> clients;
    std::string since;
    std::optional<uid_t> uid;  ///< whose it is, of a broker's
    std::string state;         ///< "live", "preparing", "ending"; of others than a broker's always "live"
};

/// What the guard has, in the whole machine.
Result<std::vector<Row>> read_guard() {
    POSTERN_ASSIGN(const GuardAccess guard, GuardAccess::open());
    std::vector<Row> rows;
    if (!guard.pins) return rows;
    POSTERN_ASSIGN(const auto files, guard.pins->files());
    const int64_t ahead = realtime_ahead();
    for (LiveGrant& grant : live_grants(files)) {
        std::string since = utc_text(static_cast<int64_t>(grant.since) + ahead);
        rows.push_back({std::move(grant), {}, std::move(since), std::nullopt, "live"});
    }
    return rows;
}

/// Adds what the broker knows: whose they are, and those whose client has closed its files.
Status add_brokered(std::vector<Row>& rows, const BrokerReply& reply) {
    if (reply.refusal) return fail("broker: {}", reply.message);
    try {
        for (const Json& said : reply.answer.at("grants")) {
            const auto id = said.at("grant").get<std::string>();
            auto row =
                std::find_if(rows.begin(), rows.end(), [&](const Row& each) { return each.grant.id == id; });
            if (row == rows.end()) {
                Row& fresh = rows.emplace_back();
                fresh.grant.id = id;
                fresh.grant.device = said.at("device").get<std::string>();
                fresh.grant.profile = said.at("profile").get<std::string>();
                fresh.grant.slice = said.at("slice").get<unsigned>();
                fresh.grant.sandbox = said.at("sandbox").get<uint64_t>();
                row = std::prev(rows.end());
            }
            row->since = said.at("since").get<std::string>();
            row->uid = said.at("uid").get<uid_t>();
            row->state = said.at("state").get<std::string>();
        }
    } catch (const Json::exception& error) {
        return fail("broker: its answer cannot be read: {}", error.what());
    }
    return {};
}

/// All of the machine for root, their own of the broker's for others.
Result<std::vector<Row>> read_rows() {
    BrokerRequest request;
    request.op = BrokerRequest::Op::Grants;
    POSTERN_ASSIGN(const auto reply, ask_usual_broker(request));
    std::vector<Row> rows;
    if (::geteuid() == 0 || !reply) {
        POSTERN_ASSIGN(rows, read_guard());
    }
    if (reply) POSTERN_TRY(add_brokered(rows, *reply));
    for (Row& row : rows) {
        if (row.grant.sandbox == 0 || ::geteuid() != 0) continue;
        POSTERN_ASSIGN(row.clients, cgroup_processes(row.grant.sandbox));
    }
    return rows;
}

std::string user_text(const Row& row) {
    return row.uid ? fmt::format("{}", *row.uid) : "-";
}

int list_grants(bool json) {
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
                           {"uid", row.uid ? Json(*row.uid) : Json(nullptr)},
                           {"state", row.state},
                           {"clients", row.clients},
                           {"since", row.since},
                           {"refused", row.grant.refused},
                           {"files", row.grant.files.size()},
                           {"revoked", row.grant.revoked}});
        }
        fmt::print("{}\n", all.dump(2));
        return 0;
    }
    fmt::print("{:<17} {:<13} {:<20} {:>5} {:>6} {:>8} {:>8}  {:<24} {}\n", "grant", "device", "profile",
               "slice", "uid", "launcher", "refused", "since", "clients");
    for (const Row& row : *rows) {
        fmt::print("{:<17} {:<13} {:<20} {:>5} {:>6} {:>8} {:>8}  {:<24} {}{}{}\n", row.grant.id,
                   row.grant.device, row.grant.profile, row.grant.slice, user_text(row), row.grant.launcher,
                   row.grant.refused, row.since,
                   row.clients.empty() ? "-" : fmt::format("{}", fmt::join(row.clients, " ")),
                   row.grant.revoked ? " (revoked)" : "",
                   row.state == "live" ? "" : fmt::format(" ({})", row.state));
    }
    return 0;
}

}  // namespace

Command add_ps_command(CLI::App& app) {
    auto json = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand("ps",
                                           "live grants: device, slice, whose, launcher, clients, since "
                                           "when, how many calls were refused; without root "
                                           "one's own of the broker's");
    command->add_flag("--json", *json, "as JSON");
    return [json](const CommandLine&) { return list_grants(*json); };
}

}  // namespace postern
