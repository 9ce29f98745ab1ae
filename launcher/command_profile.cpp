// SPDX-License-Identifier: Apache-2.0
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "broker-core/pci.h"
#include "broker-core/plan.h"
#include "broker-core/profile_reader.h"
#include "launcher/commands.h"
#include "launcher/explain.h"
#include "launcher/sandbox_from_profile.h"

namespace postern {
namespace {

struct ProfileOptions {
    std::string profile;
    std::string device;
    bool json = false;
};

unsigned terminal_columns() {
    winsize size{};
    return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : 80;
}

/// The profile, and what its device is like where one was named.
struct Subject {
    LoadedProfile loaded;
    std::optional<DeviceInfo> device;
};

Result<Subject> load_subject(const ProfileOptions& options) {
    POSTERN_ASSIGN(LoadedProfile loaded, load_profile(options.profile));
    Subject subject{std::move(loaded), std::nullopt};
    if (options.device.empty()) return subject;
    POSTERN_ASSIGN(const std::string bdf, parse_bdf(options.device));
    POSTERN_ASSIGN(const PciDevice pci, read_pci_device(bdf));
    subject.device = forecast_device_info(pci);
    return subject;
}

int lint(const ProfileOptions& options) {
    auto subject = load_subject(options);
    if (!subject) return report(subject.error(), kFailed);
    const Profile& profile = subject->loaded.profile;
    if (auto spec = sandbox_from_profile(profile, {}); !spec) return report(spec.error(), kFailed);
    if (subject->device) {
        if (auto plan = plan_device(profile, *subject->device); !plan) return report(plan.error(), kFailed);
    }
    const std::vector<std::string> weak = weakenings(profile);
    if (options.json) {
        std::vector<std::string> names;
        for (const ReadFile& each : subject->loaded.files) names.push_back(each.path);
        fmt::print("{}\n", Json{{"profile", profile.name}, {"files", names}, {"weakens", weak}}.dump(2));
        return 0;
    }
    for (const std::string& each : weak) fmt::print("profile {}: note: {}\n", profile.name, each);
    fmt::print("profile {}: good{}\n", profile.name,
               subject->device  ? " for " + subject->device->bdf
               : profile.device ? " (--device BDF checks it against hardware too)"
                                : "");
    return 0;
}

int show(const ProfileOptions& options) {
    auto subject = load_subject(options);
    if (!subject) return report(subject.error(), kFailed);
    fmt::print("{}\n", subject->loaded.merged.dump(2));
    return 0;
}

int explain(const ProfileOptions& options) {
    auto subject = load_subject(options);
    if (!subject) return report(subject.error(), kFailed);
    BarSizes bars{};
    if (subject->device) {
        for (size_t i = 0; i < bars.size(); ++i) bars[i] = subject->device->regions[i].size;
    }
    fmt::print("{}", explain_profile(subject->loaded.profile, bars, terminal_columns()));
    return 0;
}

}  // namespace

Command add_profile_command(CLI::App& app) {
    CLI::App* command = app.add_subcommand("profile", "check, show or explain a profile");
    command->require_subcommand(1);
    auto options = std::make_shared<ProfileOptions>();
    const auto add = [&](const char* name, const char* help) {
        CLI::App* verb = command->add_subcommand(name, help);
        verb->add_option("PROFILE", options->profile, "profile by name or file")->required();
        verb->add_option("--device", options->device, "check against this device, too")->type_name("BDF");
        if (std::string_view(name) == "lint") verb->add_flag("--json", options->json, "as JSON");
        return verb;
    };
    CLI::App* linting = add("lint", "say whether the profile is good");
    CLI::App* showing = add("show", "print the profile after its includes are merged");
    add("explain", "draw the BARs and say in words what a client may do");
    return [=](const CommandLine&) {
        if (linting->parsed()) return lint(*options);
        if (showing->parsed()) return show(*options);
        return explain(*options);
    };
}

}  // namespace postern
