// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "broker-core/guard_cgroup.h"
#include "broker-core/live_grant.h"
#include "broker-core/owner_device.h"
#include "launcher/brokered.h"
#include "launcher/commands.h"
#include "launcher/guard_access.h"

namespace postern {
namespace {

struct RevokeOptions {
    std::string grant;
    bool kill = false;
    bool reset = false;
};

Result<LiveGrant> find_grant(const GuardAccess& guard, const std::string& id) {
    std::vector<LiveGrant> grants;
    if (guard.pins) {
        POSTERN_ASSIGN(const auto files, guard.pins->files());
        grants = live_grants(files);
    }
    const auto found =
        std::find_if(grants.begin(), grants.end(), [&](const LiveGrant& each) { return each.id == id; });
    if (found == grants.end()) return fail("no live grant {}; `postern ps` lists them", id);
    return *found;
}

/// What was done, in words.
Result<std::string> reset_device(GuardPins& pins, const LiveGrant& grant) {
    POSTERN_ASSIGN(const UniqueFd device, take_owner_device(pins, grant.launcher, grant.device));
    POSTERN_ASSIGN(const bool was_reset, stop_device(device.get()));
    return fmt::format("{} {}; its memory space is off until its launcher ends", grant.device,
                       was_reset ? "was reset" : "has no way to be reset");
}

/// A grant of the broker's is the broker's to end: it owns the device. Nothing if it is not one, or there is
/// no broker.
Result<std::optional<std::string>> revoke_brokered(const RevokeOptions& options) {
    BrokerRequest request;
    request.op = BrokerRequest::Op::Revoke;
    request.grant = options.grant;
    request.kill = options.kill;
    request.reset = options.reset;
    POSTERN_ASSIGN(const auto reply, ask_usual_broker(request));
    if (!reply) return std::optional<std::string>();
    if (!reply->refusal) return reply->answer.value("revoked", "");
    // root has others to look for; for everybody else there are none.
    if (*reply->refusal == BrokerRefusal::NotFound && ::geteuid() == 0) return std::optional<std::string>();
    return fail("{}", reply->message);
}

/// In the order of what takes most away with least: calls, mappings, the process.
Result<std::string> revoke(const RevokeOptions& options) {
    POSTERN_ASSIGN(auto brokered, revoke_brokered(options));
    if (brokered) return std::move(*brokered);
    POSTERN_ASSIGN(GuardAccess guard, GuardAccess::open());
    POSTERN_ASSIGN(const LiveGrant grant, find_grant(guard, options.grant));
    size_t revoked = 0;
    for (const GuardPins::Key& file : grant.files) {
        // Not done: it was closed a moment ago.
        POSTERN_ASSIGN(const bool done, guard.pins->revoke(file, grant.id));
        revoked += done ? 1 : 0;
    }
    std::string words = fmt::format("grant {}: every further call on its {} open file{} is refused", grant.id,
                                    revoked, revoked == 1 ? "" : "s");
    Status first;
    if (options.reset) {
        auto reset = reset_device(*guard.pins, grant);
        if (reset) {
            words += "; " + *reset;
        } else {
            first = Failure(std::move(reset.error()));
        }
    }
    if (options.kill && grant.sandbox == 0) {
        if (first) first = fail("grant {} has no sandbox to kill", grant.id);
    } else if (options.kill) {
        POSTERN_ASSIGN(const std::vector<pid_t> clients, cgroup_processes(grant.sandbox));
        if (Status killed = kill_cgroup(grant.sandbox); !killed && first) first = std::move(killed);
        words += fmt::format("; {} process{} killed", clients.size(), clients.size() == 1 ? "" : "es");
        // A file of its own is closed now; what it shares ends here.
        for (const GuardPins::Key& file : grant.files) {
            if (Status forgotten = file.share != 0 ? guard.pins->forget_share(file) : Status();
                !forgotten && first)
                first = std::move(forgotten);
        }
    }
    if (!first) return propagate(std::move(first), words);
    return words;
}

int run(const RevokeOptions& options) {
    const auto words = revoke(options);
    if (!words) return report(words.error(), kFailed);
    fmt::print("{}\n", *words);
    return 0;
}

}  // namespace

Command add_revoke_command(CLI::App& app) {
    auto options = std::make_shared<RevokeOptions>();
    CLI::App* command =
        app.add_subcommand("revoke", "refuse every further call on the files of a grant, at once");
    command->add_option("GRANT", options->grant, "grant, as `postern ps` lists it")->required();
    command->add_flag("--kill", options->kill, "also kill the client, with everything in its sandbox");
    command->add_flag(
        "--reset", options->reset,
        "also take back what the client has mapped: reset the device, if it can be reset, and switch "
        "its memory space off; this stops every slice of the device");
    return [options](const CommandLine&) { return run(*options); };
}

}  // namespace postern
