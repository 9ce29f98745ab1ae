// SPDX-License-Identifier: Apache-2.0
#include "broker-core/binding.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "broker-core/device_access.h"
#include "broker-core/file.h"
#include "broker-core/pci.h"
#include "broker-core/runtime_dir.h"
#include "broker-core/unique_fd.h"

namespace postern {
namespace {

std::string device_file(const std::string& bdf, const char* name) {
    return "/sys/bus/pci/devices/" + bdf + "/" + name;
}

std::string record_path(const std::string& bdf) {
    return std::string(kRuntimeDir) + "/bindings/" + bdf;
}

/// Unbinds from the present driver, sets the override, and lets the PCI core choose a driver again.
Status move_to(const PciDevice& device, const std::string& override_name) {
    POSTERN_TRY(write_file(device_file(device.bdf, "driver_override"), override_name + "\n"));
    if (!device.driver.empty()) POSTERN_TRY(write_file(device_file(device.bdf, "driver/unbind"), device.bdf));
    return write_file("/sys/bus/pci/drivers_probe", device.bdf);
}

/// What the device was before: its driver and its driver_override, a line each.
struct Record {
    std::string driver;
    std::string override_name;
};

std::string read_override(const std::string& bdf) {
    const auto text = read_file(device_file(bdf, "driver_override"), 4096);
    const std::string name = text ? text->substr(0, text->find('\n')) : "";
    return name == "(null)" ? "" : name;
}

Result<Record> recall(const std::string& bdf) {
    POSTERN_ASSIGN(const std::string text, read_file(record_path(bdf), 4096));
    std::istringstream lines(text);
    Record record;
    std::getline(lines, record.driver);
    std::getline(lines, record.override_name);
    return record;
}

Status remember(const std::string& bdf, const Record& record) {
    POSTERN_TRY(make_runtime_dir());
    std::error_code code;
    std::filesystem::create_directories(std::string(kRuntimeDir) + "/bindings", code);
    // Whole or not at all: a half-written record would give the device to nobody.
    const std::string path = record_path(bdf);
    const std::string fresh = path + ".new";
    std::ofstream(fresh) << record.driver << '\n' << record.override_name << '\n';
    std::filesystem::rename(fresh, path, code);
    if (code) return fail_errno(code.value(), "cannot write {}", path);
    return {};
}

/// Neither a group nor a cdev can be taken while somebody has the device by either. A kernel may have but one
/// of them.
bool is_in_use(const PciDevice& device) {
    if (!device.iommu_group) return false;
    const UniqueFd group(
        ::open(fmt::format("/dev/vfio/{}", *device.iommu_group).c_str(), O_RDWR | O_CLOEXEC));
    if (group) return false;
    if (errno != ENOENT) return errno == EBUSY;
    const auto access = DeviceAccess::open(device, Backend::Cdev);
    return !access && (access.error().errnum == EBUSY || access.error().errnum == EINVAL);
}

}  // namespace

Result<std::string> bind_device(const std::string& bdf) {
    POSTERN_ASSIGN(const PciDevice device, read_pci_device(bdf));
    if (device.driver == "vfio-pci") return std::string("vfio-pci");
    if (!device.iommu_group) POSTERN_TRY(check_ownable(device));  // says what to do about a missing IOMMU
    if (device.is_bridge())
        return fail("device {}: is a bridge; VFIO owns devices behind it, not the bridge", bdf);
    std::error_code code;
    if (!std::filesystem::exists("/sys/bus/pci/drivers/vfio-pci", code)) {
        return fail("device {}: the vfio-pci driver is not loaded; run `modprobe vfio-pci`", bdf);
    }
    if (::geteuid() != 0) return fail("device {}: binding a driver needs root; run postern with sudo", bdf);
    const Record record{device.driver, read_override(bdf)};
    POSTERN_TRY(remember(bdf, record));
    auto moved = move_to(device, "vfio-pci");
    const auto after = read_pci_device(bdf);
    if (moved && after && after->driver == "vfio-pci") return device.driver;
    // Back to what it was.
    if (after) {
        (void)move_to(*after, record.override_name);
        if (const auto now = read_pci_device(bdf);
            now && now->driver != device.driver && !device.driver.empty()) {
            (void)write_file("/sys/bus/pci/drivers/" + device.driver + "/bind", bdf);
        }
    }
    std::filesystem::remove(record_path(bdf), code);
    if (!moved) return propagate(std::move(moved), "device " + bdf);
    return fail("device {}: vfio-pci did not take it; the kernel log says why (dmesg | tail)", bdf);
}

Result<std::string> unbind_device(const std::string& bdf) {
    POSTERN_ASSIGN(const PciDevice device, read_pci_device(bdf));
    const auto record = recall(bdf);
    if (!record) {
        return fail(
            "device {}: was not bound by `postern bind`, so its old driver is not known; it is bound to {}",
            bdf, device.driver.empty() ? "no driver" : device.driver);
    }
    if (::geteuid() != 0) return fail("device {}: binding a driver needs root; run postern with sudo", bdf);
    const std::string& driver = record->driver;
    // While a client's fd is open the kernel would wait for it in "unbind", without end.
    if (device.driver == "vfio-pci" && is_in_use(device))
        return fail("device {}: is in use; end its clients first", bdf);
    POSTERN_TRY(move_to(device, record->override_name));
    POSTERN_ASSIGN(const PciDevice after, read_pci_device(bdf));
    if (after.driver != driver) {
        // The PCI core may prefer another driver, or none had the device: what was recorded decides.
        if (!after.driver.empty()) POSTERN_TRY(write_file(device_file(bdf, "driver/unbind"), bdf));
        if (!driver.empty()) POSTERN_TRY(write_file("/sys/bus/pci/drivers/" + driver + "/bind", bdf));
    }
    std::error_code code;
    std::filesystem::remove(record_path(bdf), code);
    return driver;
}

}  // namespace postern
