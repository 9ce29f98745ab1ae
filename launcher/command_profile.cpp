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
#include "launcher/launch.h"
#include "launcher/launch_file.h"
#include "launcher/launch_options.h"
#include "launcher/sandbox_flags.h"
#include "launcher/sandbox_from_profile.h"

namespace postern {
namespace {

struct ProfileOptions {
    std::string profile;
    std::string device;
    std::string output;
    bool json = false;
    SandboxFlags sandbox;
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

int compile(const ProfileOptions& options) {
    auto loaded = load_profile(options.profile);
    if (!loaded) return report(loaded.error(), kFailed);
    Profile& profile = loaded->profile;
    const std::string context = fmt::format("profile {}", profile.name);
    if (profile.device || !profile.files.empty()) {
        return report(Error{fmt::format("{}: has a \"{}\" part, which is decided at the launch, by what is "
                                        "there then; only a sandbox can be compiled",
                                        context, profile.device ? "device" : "files"),
                            0},
                      kFailed);
    }
    if (auto applied = options.sandbox.apply(profile.sandbox); !applied)
        return report(std::move(applied.error()).within(context), kFailed);
    auto spec = sandbox_from_profile(profile, {});
    if (!spec) return report(spec.error(), kFailed);
    for (const Mount& mount : spec->mounts) {
        if (mount.fd < 0) continue;
        return report(
            Error{fmt::format("{}: what is mounted on {} comes from an open file of this command's, "
                              "which no later launch has; give it to `postern run`",
                              context, mount.target),
                  0},
            kFailed);
    }
    const std::string output = options.output.empty() ? profile.name + ".launch" : options.output;
    if (!is_launch_file(output)) {
        return report(Error{fmt::format("-o {}: `postern run --profile` knows it by its end, which must be "
                                        "\".launch\"",
                                        output),
                            0},
                      kFailed);
    }
    const CompiledLaunch launch = compile_launch(profile, *spec, LaunchOptions{}.spoken_weakenings(profile));
    if (auto written = write_launch_file(output, launch); !written) return report(written.error(), kFailed);
    return 0;
}

}  // namespace

Command add_profile_command(CLI::App& app) {
    CLI::App* command = app.add_subcommand("profile", "check, show, explain or compile a profile");
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
    CLI::App* explaining = add("explain", "draw the BARs and say in words what a client may do");
    CLI::App* compiling = command->add_subcommand(
        "compile",
        "write the profile's sandbox to a file that `postern run --profile FILE` begins fast from");
    compiling->add_option("PROFILE", options->profile, "profile by name or file")->required();
    compiling->add_option("-o,--output", options->output, "the file, NAME.launch without")->type_name("FILE");
    options->sandbox.add_to(*compiling);
    return [=](const CommandLine&) {
        if (linting->parsed()) return lint(*options);
        if (showing->parsed()) return show(*options);
        if (explaining->parsed()) return explain(*options);
        return compile(*options);
    };
}

}  // namespace postern
