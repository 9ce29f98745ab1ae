// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "broker-core/json_reader.h"
#include "broker-core/requirements.h"
#include "launcher/cdi_state.h"
#include "launcher/commands.h"

namespace postern {
namespace {

int check(bool json) {
    std::vector<Requirement> requirements = check_requirements(read_machine_facts());
    const std::vector<CdiFile> cdi_files = find_cdi_files(kCdiFolders);
    const HookPlace place = cdi_place(cdi_files, own_hook_place());
    requirements.push_back(
        check_cdi(cdi_files, expected_cdi_spec(place), ::access(place.program.c_str(), X_OK) == 0, place));
    unsigned missing = 0;
    Json list = Json::array();
    for (const Requirement& each : requirements) {
        if (!each.met && !each.optional) ++missing;
        list.push_back({{"id", each.id},
                        {"name", each.name},
                        {"met", each.met},
                        {"optional", each.optional},
                        {"found", each.found},
                        {"mend", each.mend}});
        if (json) continue;
        fmt::print("{:<8} {}: {}{}{}\n",
                   each.met        ? "ok"
                   : each.optional ? "optional"
                                   : "MISSING",
                   each.name, each.found, each.mend.empty() ? "" : " → ", each.mend);
    }
    if (json) {
        fmt::print("{}\n", Json{{"able", missing == 0}, {"requirements", list}}.dump(2));
    } else {
        fmt::print("{}\n", missing == 0
                               ? "This machine can run clients with guarded devices."
                               : fmt::format("{} of {} requirements are missing; plain sandboxes (`postern "
                                             "run` without --device) need none of VFIO and BPF.",
                                             missing, requirements.size()));
    }
    return missing == 0 ? 0 : kFailed;
}

}  // namespace

Command add_check_command(CLI::App& app) {
    auto json = std::make_shared<bool>(false);
    CLI::App* command =
        app.add_subcommand("check", "is this machine able to? one line a requirement, and how to mend it");
    command->add_flag("--json", *json, "as JSON");
    return [json](const CommandLine&) { return check(*json); };
}

}  // namespace postern
