// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>

#include "broker-core/guard_cgroup.h"
#include "broker-core/guard_listener.h"
#include "broker-core/guard_loader.h"
#include "broker-core/guard_support.h"
#include "broker-core/json_reader.h"
#include "broker-core/live_grant.h"
#include "launcher/commands.h"
#include "launcher/guard_access.h"

namespace postern {
namespace {

/// What `guard status` tells.
struct GuardStatus {
    std::string folder;      ///< empty: no guard is loaded
    bool own_build = false;  ///< this postern's, not another build of the same ABI
    std::vector<std::string> attached;
    std::vector<pid_t> users;
    std::vector<unsigned> listeners;
    std::vector<LiveGrant> grants;
    size_t files = 0;
    size_t sandboxes = 0;
    uint64_t strays = 0;
    std::optional<bool> argument_rules;  ///< nothing: not found out yet
    std::vector<std::string> others;     ///< sets of other ABIs
};

std::vector<std::string> other_sets(const std::string& own) {
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& each : std::filesystem::directory_iterator(std::string(kBpffs) + "/postern", error)) {
        if (each.path().string() != own) found.push_back(each.path().string());
    }
    std::sort(found.begin(), found.end());
    return found;
}

Result<GuardStatus> read_status() {
    POSTERN_ASSIGN(const GuardAccess guard, GuardAccess::open());
    GuardStatus status;
    POSTERN_ASSIGN(GuardUse use, GuardUse::begin());
    POSTERN_ASSIGN(status.users, use.others());
    use.end();
    POSTERN_ASSIGN(status.listeners, GuardListener::held());
    if (guard.pins) {
        status.folder = guard.pins->folder();
        POSTERN_ASSIGN(const postern_about about, guard.pins->about());
        status.own_build = about.stamp == guard_stamp();
        status.attached = guard.pins->attached();
        POSTERN_ASSIGN(const auto files, guard.pins->files());
        status.files = files.size();
        status.grants = live_grants(files);
        POSTERN_ASSIGN(const std::vector<uint64_t> sandboxes, guard.pins->sandboxes());
        status.sandboxes = sandboxes.size();
        POSTERN_ASSIGN(const postern_state state, guard.pins->state());
        status.strays = state.strays_denied;
        // Learned with the first use.
        if (state.memfd_f_op != 0) status.argument_rules = state.sealed_flag != 0;
    }
    status.others = other_sets(status.folder);
    return status;
}

std::string joined(const auto& list) {
    return list.empty() ? "none" : fmt::format("{}", fmt::join(list, " "));
}

void print_text(const GuardStatus& status) {
    const auto line = [](const char* name, const std::string& value) {
        fmt::print("{:<16} {}\n", name, value);
    };
    if (status.folder.empty()) {
        line("guard", "not loaded; the first client on a device loads it");
    } else {
        line("guard", fmt::format("{} (ABI {}{})", status.folder, POSTERN_GUARD_ABI,
                                  status.own_build ? "" : ", of another build"));
        line("attached", joined(status.attached));
        std::vector<std::string> grants;
        for (const LiveGrant& each : status.grants) grants.push_back(each.id);
        line("grants", joined(grants));
        line("files", fmt::format("{}", status.files));
        line("sandboxes", fmt::format("{}", status.sandboxes));
        line("refused strays", fmt::format("{}", status.strays));
        line("argument rules", !status.argument_rules   ? "not known before the first client"
                               : *status.argument_rules ? "can be enforced"
                                                        : "cannot be enforced: this kernel has no mseal(2)");
    }
    line("users", joined(status.users));
    line("listeners", fmt::format("{} of {}", status.listeners.size(), POSTERN_MAX_LISTENERS));
    if (!status.others.empty()) line("other sets", joined(status.others));
}

Json to_json(const GuardStatus& status) {
    Json grants = Json::array();
    for (const LiveGrant& each : status.grants) grants.push_back(each.id);
    const bool loaded = !status.folder.empty();
    return {{"loaded", loaded},
            {"folder", loaded ? Json(status.folder) : Json(nullptr)},
            {"abi", POSTERN_GUARD_ABI},
            {"own_build", loaded ? Json(status.own_build) : Json(nullptr)},
            {"attached", status.attached},
            {"users", status.users},
            {"listeners", status.listeners},
            {"grants", grants},
            {"files", status.files},
            {"sandboxes", status.sandboxes},
            {"strays_refused", status.strays},
            {"argument_rules", status.argument_rules ? Json(*status.argument_rules) : Json(nullptr)},
            {"other_sets", status.others}};
}

int show(bool json) {
    const auto status = read_status();
    if (!status) return report(status.error(), kFailed);
    if (json) {
        fmt::print("{}\n", to_json(*status).dump(2));
    } else {
        print_text(*status);
    }
    return 0;
}

/// That nothing depends on the guard.
Status check_idle(const GuardPins& pins) {
    POSTERN_ASSIGN(const auto files, pins.files());
    if (!files.empty()) {
        std::vector<std::string> grants;
        for (const LiveGrant& each : live_grants(files)) {
            grants.push_back(fmt::format("{} ({} slice {}, launcher {})", each.id, each.device, each.slice,
                                         each.launcher));
        }
        return fail("the guard is in use by grant {}; `postern revoke --kill GRANT` ends one",
                    fmt::join(grants, ", "));
    }
    POSTERN_ASSIGN(GuardUse use, GuardUse::begin());
    POSTERN_ASSIGN(const bool alone, use.is_only_one());
    POSTERN_ASSIGN(const std::vector<pid_t> users, use.others());
    use.end();
    if (!alone)
        return fail("the guard is in use by the postern with pid {}; end it first", fmt::join(users, ", "));
    POSTERN_ASSIGN(const std::vector<unsigned> listeners, GuardListener::held());
    if (!listeners.empty()) {
        return fail("somebody listens to the guard ({}); end `postern monitor` first", listeners.size());
    }
    POSTERN_ASSIGN(const std::vector<uint64_t> sandboxes, pins.sandboxes());
    for (const uint64_t id : sandboxes) {
        if (cgroup_state(id) != CgroupState::Populated) continue;
        return fail(
            "the guard still watches over the sandbox with cgroup {}, and somebody is in it; end it first",
            id);
    }
    return {};
}

Result<std::string> unload() {
    POSTERN_ASSIGN(GuardAccess guard, GuardAccess::open());
    if (!guard.pins) return std::string("the guard was not loaded");
    POSTERN_TRY(check_idle(*guard.pins));
    POSTERN_TRY(guard.pins->remove());
    return fmt::format("{} is removed; the next client on a device loads the guard again",
                       guard.pins->folder());
}

int run_unload() {
    const auto words = unload();
    if (!words) return report(words.error(), kFailed);
    fmt::print("{}\n", *words);
    return 0;
}

}  // namespace

Command add_guard_command(CLI::App& app) {
    CLI::App* command = app.add_subcommand("guard", "the guard in the kernel: what it holds, and its end");
    command->require_subcommand(1);
    auto json = std::make_shared<bool>(false);
    CLI::App* status = command->add_subcommand(
        "status", "where the guard is pinned, what it is attached to, who uses it, what it watches over");
    status->add_flag("--json", *json, "as JSON");
    const CLI::App* remove =
        command->add_subcommand("unload", "remove the guard from the kernel, if nothing depends on it");
    return [=](const CommandLine&) { return remove->parsed() ? run_unload() : show(*json); };
}

}  // namespace postern
