// SPDX-License-Identifier: Apache-2.0
#include "broker-core/pci.h"

#include <linux/pci_regs.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <sstream>

#include "broker-core/file.h"

namespace postern {
namespace {

const std::string kDevices = "/sys/bus/pci/devices/";

std::string link_name(const std::string& path) {
    std::error_code code;
    const auto target = std::filesystem::read_symlink(path, code);
    return code ? std::string() : target.filename().string();
}

uint64_t read_hex(const std::string& path) {
    const auto text = read_file(path, 4096);
    return text ? std::strtoull(text->c_str(), nullptr, 16) : 0;
}

/// Drivers that leave a group viable for VFIO (drivers/vfio/group.c, vfio_dev_viable; the PCI core's bridges
/// take no DMA of user space's).
bool leaves_group_viable(const PciDevice& device) {
    return device.driver.empty() || device.driver == "vfio-pci" || device.driver == "pci-stub" ||
           device.driver == "pcieport";
}

constexpr uint64_t kIoResourceMem = 0x200;  // include/linux/ioport.h, the third column of "resource"

}  // namespace

Result<std::string> parse_bdf(std::string_view text) {
    const auto hex = [](std::string_view digits) {
        return !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) {
            return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        });
    };
    std::string full(text);
    if (std::count(full.begin(), full.end(), ':') == 1) full = "0000:" + full;
    if (full.size() == 12 && full[4] == ':' && full[7] == ':' && full[10] == '.' &&
        hex(std::string_view(full).substr(0, 4)) && hex(std::string_view(full).substr(5, 2)) &&
        hex(std::string_view(full).substr(8, 2)) && full[11] >= '0' && full[11] <= '7') {
        std::transform(full.begin(), full.end(), full.begin(),
                       [](char c) { return static_cast<char>(tolower(c)); });
        return full;
    }
    return fail("device \"{}\": not a PCI address; write it as 0000:00:02.0 (`postern devices` lists them)",
                text);
}

std::optional<int> iommu_group_of(const std::string& bdf) {
    const std::string group = link_name(kDevices + bdf + "/iommu_group");
    int number = -1;
    std::from_chars(group.data(), group.data() + group.size(), number);
    if (number < 0) return std::nullopt;
    return number;
}

Result<PciDevice> read_pci_device(const std::string& bdf) {
    const std::string folder = kDevices + bdf + "/";
    std::error_code code;
    if (!std::filesystem::exists(folder, code)) {
        return fail("device {}: there is no such PCI device; `postern devices` lists those of this machine",
                    bdf);
    }
    PciDevice device;
    device.bdf = bdf;
    device.id.vendor = static_cast<uint16_t>(read_hex(folder + "vendor"));
    device.id.device = static_cast<uint16_t>(read_hex(folder + "device"));
    device.id.subsystem_vendor = static_cast<uint16_t>(read_hex(folder + "subsystem_vendor"));
    device.id.subsystem_device = static_cast<uint16_t>(read_hex(folder + "subsystem_device"));
    device.class_code = static_cast<uint32_t>(read_hex(folder + "class"));
    device.driver = link_name(folder + "driver");
    device.iommu_group = iommu_group_of(bdf);
    for (const auto& entry : std::filesystem::directory_iterator(folder + "vfio-dev", code))
        device.cdev = entry.path().filename().string();
    if (const auto text = read_file(folder + "resource", 1 << 16)) {
        std::istringstream lines(*text);
        for (PciBar& bar : device.bars) {
            uint64_t begin = 0;
            uint64_t end = 0;
            uint64_t flags = 0;
            if (!(lines >> std::hex >> begin >> end >> flags)) break;
            if (end <= begin) continue;
            bar = {begin, end - begin + 1, (flags & kIoResourceMem) != 0};
        }
    }
    if (auto config = read_file(folder + "config", 4096)) device.config = std::move(*config);
    if (auto methods = read_file(folder + "reset_method", 4096)) device.reset_methods = std::move(*methods);
    return device;
}

Result<std::vector<PciDevice>> list_pci_devices() {
    std::error_code code;
    std::vector<PciDevice> devices;
    for (const auto& entry : std::filesystem::directory_iterator(kDevices, code)) {
        // A device may be unplugged between the listing and the reading.
        if (auto device = read_pci_device(entry.path().filename().string()))
            devices.push_back(std::move(*device));
    }
    if (code && code != std::errc::no_such_file_or_directory) {
        return fail_errno(code.value(), "cannot list {}", kDevices);
    }
    std::sort(devices.begin(), devices.end(),
              [](const PciDevice& a, const PciDevice& b) { return a.bdf < b.bdf; });
    return devices;
}

std::vector<std::string> iommu_group_members(int group) {
    std::vector<std::string> members;
    std::error_code code;
    const auto folder = fmt::format("/sys/kernel/iommu_groups/{}/devices", group);
    for (const auto& entry : std::filesystem::directory_iterator(folder, code)) {
        members.push_back(entry.path().filename().string());
    }
    std::sort(members.begin(), members.end());
    return members;
}

DeviceInfo forecast_device_info(const PciDevice& device) {
    DeviceInfo info;
    info.bdf = device.bdf;
    info.id = device.id;
    info.can_reset = !device.reset_methods.empty();
    for (size_t i = 0; i < device.bars.size(); ++i) {
        RegionInfo& region = info.regions[i];
        region.size = device.bars[i].size;
        region.file_offset = uint64_t{i} << 40;  // drivers/vfio: VFIO_PCI_OFFSET_SHIFT
        region.readable = region.size != 0;
        region.writable = region.size != 0 && i < 6;
        if (i < 6 && device.bars[i].memory && region.size >= kPageSize) region.mappable = {{0, region.size}};
    }
    info.regions[7] = {device.config.size() > 256 ? 4096U : 256U, uint64_t{7} << 40, true, true, {}};
    ConfigFacts facts = parse_config_space(device.config);
    info.msix = facts.msix;
    if (device.config.size() <= PCI_STD_HEADER_SIZEOF) {
        // Without root the capabilities are out of sight: assume the most that PCI allows.
        facts.msi_vectors = 32;
        facts.msix_vectors = 2048;
    }
    info.irqs[0] = {facts.intx ? 1U : 0U, true};
    info.irqs[1] = {facts.msi_vectors, true};
    info.irqs[2] = {facts.msix_vectors, true};
    info.irqs[3] = {1, true};
    info.irqs[4] = {1, true};
    return info;
}

Status check_ownable(const PciDevice& device) {
    if (!device.iommu_group) {
        return fail(
            "device {}: has no IOMMU group; switch the IOMMU on in the firmware and boot with intel_iommu=on "
            "(Intel) or iommu=on (AMD)",
            device.bdf);
    }
    if (device.driver != "vfio-pci") {
        return fail("device {}: is bound to {}, not to vfio-pci; run `postern bind {}`", device.bdf,
                    device.driver.empty() ? "no driver" : device.driver, device.bdf);
    }
    for (const std::string& member : iommu_group_members(*device.iommu_group)) {
        if (member == device.bdf) continue;
        const auto other = read_pci_device(member);
        if (!other || leaves_group_viable(*other)) continue;
        return fail(
            "device {}: shares IOMMU group {} with {}, which {} uses; the group can only be owned as a "
            "whole: "
            "run `postern bind {}` too, or put the device into another slot",
            device.bdf, *device.iommu_group, member, other->driver, member);
    }
    return {};
}

}  // namespace postern
