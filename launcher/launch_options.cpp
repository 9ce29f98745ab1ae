// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_options.h"

#include <CLI/CLI.hpp>

#include "broker-core/pci.h"
#include "broker-core/plan.h"
#include "launcher/compiled_run.h"
#include "launcher/launch_file.h"
#include "launcher/report.h"

namespace postern {

void LaunchOptions::add_to(CLI::App& command) {
    command.add_option("--device", device, "PCI address of the device to own, e.g. 0000:00:02.0")
        ->type_name("BDF");
    command.add_option("--profile", profile, "profile by name or file; the built-in default without")
        ->type_name("NAME|FILE");
    command.add_flag("--dry-run", dry_run, "print the whole plan and do nothing");
    command.add_flag("--json", json, "print the plan as JSON");
    command.add_flag("--quiet", quiet, "do not print what the profile weakens and what the guard refuses");
    command
        .add_option("--broker", broker,
                    "socket of a broker that is to be asked for the device; auto: the usual one, if it has "
                    "the device or "
                    "the caller is not root; none: own the device")
        ->type_name("PATH")
        ->capture_default_str();
    command
        .add_option(
            "--backend", backend,
            "by what the device is owned: type1 (IOMMU group and container), iommufd (group in an iommufd), "
            "cdev (/dev/vfio/devices and an iommufd), or auto: what the machine has; $POSTERN_BACKEND is the "
            "default")
        ->type_name("NAME")
        ->check(CLI::IsMember({"auto", "type1", "iommufd", "cdev"}));
    sandbox.add_to(command);
    command.prefix_command();  // the first word that is no option begins the client's command line
}

Result<Profile> LaunchOptions::load(std::vector<ReadFile>* read) const {
    Profile loaded;
    if (profile.empty()) {
        POSTERN_ASSIGN(loaded, read_profile(Json{{"postern", 1}}, false));
        loaded.name = "default";
        loaded.folder = "/";
    } else if (is_launch_file(profile)) {
        return fail(
            "profile {}: is compiled, so that --quiet is all that can be said besides; give other options to "
            "`postern profile compile`",
            profile);
    } else {
        POSTERN_ASSIGN(LoadedProfile from_file, load_profile(profile));
        loaded = std::move(from_file.profile);
        if (read != nullptr) *read = std::move(from_file.files);
    }
    POSTERN_TRY(sandbox.apply(loaded.sandbox));
    if (loaded.device && device.empty()) {
        return fail(
            "profile {}: has a \"device\" part: name the device with --device BDF (`postern devices` lists "
            "them)",
            loaded.name);
    }
    return loaded;
}

Result<std::optional<BrokerPlace>> LaunchOptions::choose_broker() {
    if (dry_run) return std::optional<BrokerPlace>();
    POSTERN_ASSIGN(auto place, find_broker(broker, device));
    if (place && profile.empty()) profile = place->profile;
    return place;
}

std::vector<std::string> LaunchOptions::spoken_weakenings(const Profile& loaded) const {
    std::vector<std::string> lines;
    if (quiet) return lines;
    for (const std::string& weakening : weakenings(loaded))
        lines.push_back(fmt::format("postern: profile {} weakens the sandbox: {}\n", loaded.name, weakening));
    return lines;
}

void LaunchOptions::print_weakenings(const Profile& loaded) const {
    for (const std::string& line : spoken_weakenings(loaded)) tell("{}", line);
    if (!quiet) tell_landlock_gaps(loaded.sandbox.landlock);
}

Result<Json> forecast_plan(const Profile& profile, const std::string& device) {
    if (device.empty()) return Json(nullptr);
    POSTERN_ASSIGN(const std::string bdf, parse_bdf(device));
    POSTERN_ASSIGN(const PciDevice pci, read_pci_device(bdf));
    POSTERN_ASSIGN(const DevicePlan plan, plan_device(profile, forecast_device_info(pci)));
    return to_json(plan);
}

}  // namespace postern
