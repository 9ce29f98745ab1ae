// SPDX-License-Identifier: Apache-2.0
#include "broker-core/owner_device.h"

#include <dirent.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/vfio.h"

namespace postern {
namespace {

/// Of every vfio-pci device: VFIO_PCI_INDEX_TO_OFFSET in the kernel's linux/vfio_pci_core.h.
constexpr uint64_t kConfigOffset = static_cast<uint64_t>(VFIO_PCI_CONFIG_REGION_INDEX) << 40;

std::vector<int> fds_of(pid_t pid) {
    std::vector<int> found;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(fmt::format("/proc/{}/fd", pid).c_str()),
                                                      ::closedir);
    if (!entries) return found;
    while (const dirent* entry = ::readdir(entries.get())) {
        if (entry->d_name[0] != '.')
            found.push_back(std::atoi(entry->d_name));  // NOLINT(cert-err34-c): the kernel's
    }
    std::sort(found.begin(), found.end());
    return found;
}

/// Whether it is a VFIO device's, and, where the kernel tells (Linux 6.15 or so), this device's.
bool may_be_device(pid_t pid, int fd, const std::string& bdf) {
    char target[64] = {};
    const std::string link = fmt::format("/proc/{}/fd/{}", pid, fd);
    if (::readlink(link.c_str(), target, sizeof target - 1) < 0) return false;
    const std::string_view what = target;
    if (what != "anon_inode:[vfio-device]" && !what.starts_with("/dev/vfio/devices/")) return false;
    const auto info = read_file(fmt::format("/proc/{}/fdinfo/{}", pid, fd), 1 << 16);
    if (!info) return false;
    const size_t at = info->find("vfio-device-syspath:");
    if (at == std::string::npos) return true;
    return info->substr(at, info->find('\n', at) - at).ends_with("/" + bdf);
}

}  // namespace

Result<UniqueFd> take_owner_device(GuardPins& pins, pid_t launcher, const std::string& bdf) {
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, launcher, 0)));
    if (!process) {
        const int error = errno;
        return fail_errno(error, "cannot reach the launcher of {}, pid {}", bdf, launcher);
    }
    POSTERN_ASSIGN(const auto guarded, pins.files());
    POSTERN_ASSIGN(const auto shared, pins.shared_files());
    // In order: the owner opens its own file before it opens those of its clients.
    for (const int fd : fds_of(launcher)) {
        if (!may_be_device(launcher, fd, bdf)) continue;
        // A guarded one may be refused here already; that it is not the owner's is all there is to know of
        // it.
        UniqueFd file(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
        if (!file) continue;
        POSTERN_ASSIGN(const uint64_t key, pins.key_of(file.get()));
        const auto is_it = [key](const auto& each) { return each.first.file == key; };
        if (std::any_of(shared.begin(), shared.end(), is_it)) {
            // The one file that there is: this process does for a moment what its owner does.
            POSTERN_TRY(pins.ask(POSTERN_PENDING_JOIN, file.get(), 0));
            return file;
        }
        if (std::none_of(guarded.begin(), guarded.end(), is_it)) return file;
    }
    return fail("the launcher of {}, pid {}, has no file of it that is not guarded; end the launcher instead",
                bdf, launcher);
}

Result<bool> stop_device(int device) {
    const Status reset = vfio::reset(device);
    // EINVAL and ENOTTY: this device has no way to be reset on its own.
    if (!reset && reset.error().errnum != EINVAL && reset.error().errnum != ENOTTY) {
        return Failure(reset.error());
    }
    // A mapping that was zapped faults its pages in again while memory space is on.
    POSTERN_ASSIGN(const uint16_t command, vfio::read_command(device, kConfigOffset));
    POSTERN_TRY(vfio::write_command(
        device, kConfigOffset, static_cast<uint16_t>(command & ~(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER))));
    return reset.has_value();
}

}  // namespace postern
