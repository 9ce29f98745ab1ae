// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "broker-core/binding.h"
#include "broker-core/json_reader.h"
#include "broker-core/pci.h"
#include "launcher/commands.h"

namespace postern {
namespace {

std::string describe_bars(const PciDevice& device) {
    std::vector<std::string> bars;
    for (size_t i = 0; i < 6; ++i) {
        if (device.bars[i].size == 0) continue;
        bars.push_back(fmt::format("bar{} {}{}", i, format_size(device.bars[i].size),
                                   device.bars[i].memory ? "" : " I/O"));
    }
    return fmt::format("{}", fmt::join(bars, ", "));
}

Json to_json(const PciDevice& device) {
    Json bars = Json::array();
    for (size_t i = 0; i < 6; ++i) {
        if (device.bars[i].size == 0) continue;
        bars.push_back({{"bar", i}, {"size", device.bars[i].size}, {"memory", device.bars[i].memory}});
    }
    const ConfigFacts facts = parse_config_space(device.config);
    return {{"device", device.bdf},
            {"vendor_id", fmt::format("{:#06x}", device.id.vendor)},
            {"device_id", fmt::format("{:#06x}", device.id.device)},
            {"class", fmt::format("{:#08x}", device.class_code)},
            {"driver", device.driver.empty() ? Json(nullptr) : Json(device.driver)},
            {"iommu_group", device.iommu_group ? Json(*device.iommu_group) : Json(nullptr)},
            {"bars", bars},
            {"msi_vectors", facts.msi_vectors},
            {"msix_vectors", facts.msix_vectors}};
}

int list(bool json) {
    auto devices = list_pci_devices();
    if (!devices) return report(devices.error(), kFailed);
    if (json) {
        Json all = Json::array();
        for (const PciDevice& device : *devices) all.push_back(to_json(device));
        fmt::print("{}\n", all.dump(2));
        return 0;
    }
    fmt::print("{:<13} {:<10} {:>6} {:<16} {}\n", "device", "id", "group", "driver", "BARs");
    for (const PciDevice& device : *devices) {
        fmt::print("{:<13} {:04x}:{:04x}  {:>6} {:<16} {}\n", device.bdf, device.id.vendor, device.id.device,
                   device.iommu_group ? fmt::format("{}", *device.iommu_group) : "-",
                   device.driver.empty() ? "-" : device.driver, describe_bars(device));
    }
    return 0;
}

/// `postern bind` and `postern unbind`: one device, one sentence of what happened.
int rebind(const std::string& text, bool bind) {
    auto bdf = parse_bdf(text);
    if (!bdf) return report(bdf.error(), kFailed);
    auto driver = bind ? bind_device(*bdf) : unbind_device(*bdf);
    if (!driver) return report(driver.error(), kFailed);
    const std::string name = driver->empty() ? "no driver" : *driver;
    if (!bind) {
        fmt::print("{}: given back to {}\n", *bdf, name);
    } else if (*driver == "vfio-pci") {
        fmt::print("{}: was bound to vfio-pci already\n", *bdf);
    } else {
        fmt::print("{}: bound to vfio-pci, was {}; `postern unbind {}` gives it back\n", *bdf, name, *bdf);
    }
    return 0;
}

Command add_rebind(CLI::App& parent, const char* name, const char* help, bool bind) {
    auto bdf = std::make_shared<std::string>();
    parent.add_subcommand(name, help)->add_option("BDF", *bdf, "PCI address, e.g. 0000:00:02.0")->required();
    return [bdf, bind](const CommandLine&) { return rebind(*bdf, bind); };
}

}  // namespace

Command add_bind_command(CLI::App& app) {
    return add_rebind(app, "bind", "bind a device to vfio-pci and remember its driver", true);
}

Command add_unbind_command(CLI::App& app) {
    return add_rebind(app, "unbind", "give a device back to the driver that it had", false);
}

Command add_devices_command(CLI::App& app) {
    auto json = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand(
        "devices", "PCI devices, IOMMU groups, drivers, BARs; also `devices bind BDF`, `devices unbind BDF`");
    command->add_flag("--json", *json, "as JSON");
    // `postern devices bind BDF` is the contract's spelling; `postern bind BDF` the short one.
    const Command bind =
        add_rebind(*command, "bind", "bind a device to vfio-pci and remember its driver", true);
    const Command unbind =
        add_rebind(*command, "unbind", "give a device back to the driver that it had", false);
    return [=](const CommandLine& rest) {
        const auto verbs = command->get_subcommands();
        if (verbs.empty()) return list(*json);
        return verbs.front()->get_name() == "bind" ? bind(rest) : unbind(rest);
    };
}

}  // namespace postern
