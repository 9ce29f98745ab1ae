// SPDX-License-Identifier: Apache-2.0
// Names that lead to hardware: device nodes, nodes of one's own making, sysfs and procfs files of the device.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/pci_regs.h>
#include <sys/io.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "broker-core/scope_guard.h"
#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

/// A node that is not there, or whose file system holds no devices, refuses as well as one that is guarded.
const std::vector<int> kNoNode{ENOENT, ENOTDIR, ENXIO, ENODEV, EROFS};

Attempt open_any(std::span<const std::string> paths, int flags) {
    return try_each(paths, "no such node", [flags](const std::string& path) {
        const UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC));
        return judged(fd.get(), path.c_str());
    });
}

/// The nodes of VFIO groups or cdevs that are there; outside there is one at least, that of the harness.
std::vector<std::string> vfio_nodes(const char* folder) {
    std::vector<std::string> paths = entries_of(folder);
    std::erase_if(
        paths, [](const std::string& path) { return path.ends_with("/vfio") || path.ends_with("/devices"); });
    return paths;
}

Attempt open_vfio_group(const Target&) {
    std::vector<std::string> paths = vfio_nodes("/dev/vfio");
    // Also those that a listing does not show.
    for (unsigned group = 0; group < 32; ++group) paths.push_back(fmt::format("/dev/vfio/{}", group));
    return open_any(paths, O_RDWR);
}

Attempt open_vfio_device(const Target&) {
    std::vector<std::string> paths = vfio_nodes("/dev/vfio/devices");
    for (unsigned device = 0; device < 32; ++device)
        paths.push_back(fmt::format("/dev/vfio/devices/vfio{}", device));
    return open_any(paths, O_RDWR);
}

/// mknod(2) of the node in a folder of one's own, then open it.
Attempt make_and_open(const Target&, mode_t type, dev_t device) {
    const std::string folder = scratch_folder();
    if (folder.empty()) return preparation_failed("a folder to write in");
    const std::string path = fmt::format("{}/node", folder);
    const ScopeGuard remove([&] {
        unlink(path.c_str());
        rmdir(folder.c_str());
    });
    if (mknod(path.c_str(), type | 0600, device) != 0) return judged(-1, "mknod");
    if (type == S_IFIFO) return succeeded();
    const UniqueFd fd(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    return judged(fd.get(), "open");
}

/// Major and minor of a misc device, out of /proc/misc; {0, 0} if it is not there.
dev_t misc_device(const std::string& name) {
    for (const std::string& line : lines_of("/proc/misc")) {
        const std::vector<std::string> words = words_of(line);
        if (words.size() != 2 || words[1] != name) continue;
        if (const auto minor = number_of(words[0])) return makedev(10, static_cast<unsigned>(*minor));
    }
    return 0;
}

Attempt make_vfio_container(const Target& target) {
    // 10:196 is what Documentation/admin-guide/devices.txt gives to /dev/vfio/vfio.
    const dev_t found = misc_device("vfio");
    return make_and_open(target, S_IFCHR, found == 0 ? makedev(10, 196) : found);
}

Attempt make_vfio_group(const Target& target) {
    for (const std::string& line : lines_of("/proc/devices")) {
        const std::vector<std::string> words = words_of(line);
        if (words.size() != 2 || words[1] != "vfio") continue;
        const uint64_t major = number_of(words[0]).value_or(0);
        int refusal = 0;
        for (unsigned minor = 0; minor < 32; ++minor) {
            Attempt attempt = make_and_open(target, S_IFCHR, makedev(static_cast<unsigned>(major), minor));
            // A group that is in use says EBUSY: to somebody who may open it.
            if (attempt.state == Attempt::State::Succeeded || attempt.errnum == EBUSY)
                return succeeded(attempt.detail);
            if (attempt.state != Attempt::State::Failed) return attempt;
            if (refusal == 0 || attempt.errnum == EPERM) refusal = attempt.errnum;
        }
        return failed(refusal, "minors 0 to 31");
    }
    return nothing("/proc/devices names no vfio");
}

// ---- files of the PCI device in sysfs and procfs ----

std::string under_bus(const Target& target, const std::string& file) {
    return fmt::format("/sys/bus/pci/devices/{}/{}", target.bdf, file);
}

/// /sys/devices/pci0000:00/0000:00:02.0/FILE, for a sandbox that hides /sys/bus; root ports lie between for
/// others.
std::string under_devices(const Target& target, const std::string& file) {
    char path[4096];
    if (realpath(under_bus(target, "").c_str(), path) != nullptr) return fmt::format("{}/{}", path, file);
    return fmt::format("/sys/devices/pci{}/{}/{}", target.bdf.substr(0, 7), target.bdf, file);
}

Attempt open_sysfs(const Target& target, const std::string& file, int flags) {
    const std::string paths[] = {under_bus(target, file), under_devices(target, file)};
    return open_any(paths, flags);
}

Attempt open_resource(const Target& target) {
    std::vector<std::string> paths;
    for (unsigned bar = 0; bar < 6; ++bar) {
        paths.push_back(under_bus(target, fmt::format("resource{}", bar)));
        paths.push_back(under_devices(target, fmt::format("resource{}", bar)));
    }
    return try_each(paths, "no such file", [](const std::string& path) {
        const UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
        // Whether a BAR that a driver holds can be mapped is up to CONFIG_IO_STRICT_DEVMEM: the open decides.
        return judged(fd.get(), path.c_str());
    });
}

/// Everybody may read the first 64 bytes, the header; what is behind takes CAP_SYS_ADMIN.
Attempt read_config(const std::vector<std::string>& paths) {
    return try_each(paths, "no such file", [](const std::string& path) {
        const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd) return judged(-1, path.c_str());
        char byte = 0;
        const ssize_t got = pread(fd.get(), &byte, 1, PCI_STD_HEADER_SIZEOF);
        if (got == 0) return failed(EACCES, path + ": the header and no more");
        return judged(got, path.c_str());
    });
}

std::string proc_bus_pci(const Target& target) {
    // 0000:00:02.0 → /proc/bus/pci/00/02.0
    if (target.bdf.size() != 12) return "/proc/bus/pci/devices";
    return fmt::format("/proc/bus/pci/{}/{}", target.bdf.substr(5, 2), target.bdf.substr(8));
}

Attempt open_null(const Target&) {
    const UniqueFd fd(open("/dev/null", O_RDWR | O_CLOEXEC));
    return judged(fd.get());
}

Attempt read_own_proc(const Target&) {
    const UniqueFd fd(open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
    return judged(fd.get());
}

}  // namespace

void add_node_probes(Probes& probes) {
    const Control null_control{"open of /dev/null", open_null};
    const Control fifo_control{"mknod of a fifo",
                               [](const Target& t) { return make_and_open(t, S_IFIFO, 0); }};
    const Control proc_control{"open of /proc/self/stat", read_own_proc};
    const auto node = [&](std::string name, std::vector<std::string> paths, std::vector<int> inherent = {},
                          std::string why = {}) {
        std::string what = "open of " + paths.front();
        probes.push_back(
            {.name = std::move(name),
             .group = "nodes",
             .what = std::move(what),
             .attempt = [paths = std::move(paths)](const Target&) { return open_any(paths, O_RDWR); },
             .control = null_control,
             .refusals = kNoNode,
             .inherent = std::move(inherent),
             .inherent_why = std::move(why),
             .passed = {EBUSY}});
    };
    const std::string not_here = "this kernel or machine has none";
    node("dev-vfio-container", {"/dev/vfio/vfio"});
    probes.push_back({.name = "dev-vfio-group",
                      .group = "nodes",
                      .what = "open of /dev/vfio/N, for every N",
                      .attempt = open_vfio_group,
                      .control = null_control,
                      .refusals = kNoNode,
                      .passed = {EBUSY}});
    probes.push_back({.name = "dev-vfio-cdev",
                      .group = "nodes",
                      .what = "open of /dev/vfio/devices/vfioN, for every N",
                      .attempt = open_vfio_device,
                      .control = null_control,
                      .refusals = kNoNode,
                      .inherent = {ENOENT},
                      .inherent_why = not_here,
                      .passed = {EBUSY, EINVAL}});
    node("dev-iommu", {"/dev/iommu"}, {ENOENT, ENODEV}, not_here);
    node("dev-mem", {"/dev/mem"}, {ENOENT, ENXIO}, not_here);
    node("dev-kmem", {"/dev/kmem"}, {ENOENT, ENXIO}, not_here);
    node("dev-port", {"/dev/port"}, {ENOENT, ENXIO}, not_here);
    node("dev-kvm", {"/dev/kvm"}, {ENOENT, ENODEV, ENXIO}, not_here);
    node("dev-msr", {"/dev/cpu/0/msr"}, {ENOENT, ENXIO}, not_here);
    node("dev-block", {"/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0", "/dev/dm-0"}, {ENOENT, ENXIO},
         not_here);
    node("dev-uinput", {"/dev/uinput", "/dev/input/event0"}, {ENOENT, ENODEV}, not_here);
    node("dev-fuse", {"/dev/fuse"}, {ENOENT, ENODEV}, not_here);
    node("dev-kmsg", {"/dev/kmsg"}, {ENOENT}, not_here);

    const struct {
        const char* name;
        const char* what;
        Attempt (*attempt)(const Target&);
    } made[] = {
        {"mknod-mem", "mknod and open of a /dev/mem of its own",
         [](const Target& t) { return make_and_open(t, S_IFCHR, makedev(1, 1)); }},
        {"mknod-vfio-container", "mknod and open of a /dev/vfio/vfio of its own", make_vfio_container},
        {"mknod-vfio-group", "mknod and open of a /dev/vfio/N of its own, for every N", make_vfio_group}};
    for (const auto& way : made) {
        probes.push_back({.name = way.name,
                          .group = "nodes",
                          .what = way.what,
                          .attempt = way.attempt,
                          .control = fifo_control,
                          .inherent = {ENXIO, ENODEV},
                          .inherent_why = not_here});
    }

    probes.push_back({.name = "sysfs-resource",
                      .group = "nodes",
                      .what = "open of the device's BARs by sysfs resource0 to 5",
                      .attempt = open_resource,
                      .control = proc_control,
                      .refusals = kNoNode});
    probes.push_back({.name = "sysfs-config-read",
                      .group = "nodes",
                      .what = "read of configuration space past its header by sysfs",
                      .attempt =
                          [](const Target& t) {
                              return read_config({under_bus(t, "config"), under_devices(t, "config")});
                          },
                      .control = proc_control,
                      .refusals = kNoNode});
    for (const char* file : {"config", "enable", "reset", "rom", "driver_override", "remove"}) {
        const int flags = std::string_view(file) == "config" ? O_RDWR : O_WRONLY;
        probes.push_back({.name = fmt::format("sysfs-{}", file),
                          .group = "nodes",
                          .what = fmt::format("open of the device's sysfs file {} for writing", file),
                          .attempt = [file, flags](const Target& t) { return open_sysfs(t, file, flags); },
                          .control = proc_control,
                          .refusals = kNoNode,
                          .inherent = {ENOENT},
                          .inherent_why = "this device has none"});
    }
    const std::string driver_files[] = {"/sys/bus/pci/drivers/vfio-pci/unbind",
                                        "/sys/bus/pci/drivers/vfio-pci/new_id", "/sys/bus/pci/rescan"};
    probes.push_back({.name = "sysfs-driver",
                      .group = "nodes",
                      .what = "open of vfio-pci's unbind, new_id or PCI's rescan for writing",
                      .attempt = [driver_files](const Target&) { return open_any(driver_files, O_WRONLY); },
                      .control = proc_control,
                      .refusals = kNoNode});
    probes.push_back({.name = "proc-bus-pci-read",
                      .group = "nodes",
                      .what = "read of configuration space past its header by /proc/bus/pci",
                      .attempt =
                          [](const Target& t) {
                              return t.bdf.empty() ? nothing("no device is granted")
                                                   : read_config({proc_bus_pci(t)});
                          },
                      .control = proc_control,
                      .refusals = kNoNode});
    probes.push_back({.name = "proc-bus-pci-write",
                      .group = "nodes",
                      .what = "open of /proc/bus/pci for writing",
                      .attempt =
                          [](const Target& t) {
                              const std::string path[] = {proc_bus_pci(t)};
                              return open_any(path, O_RDWR);
                          },
                      .control = proc_control,
                      .refusals = kNoNode});

    probes.push_back(
        {.name = "iopl", .group = "nodes", .what = "iopl(3): all I/O ports", .attempt = [](const Target&) {
             return judged(iopl(3));
         }});
    probes.push_back({.name = "ioperm",
                      .group = "nodes",
                      .what = "ioperm: the ports of PCI configuration",
                      .attempt = [](const Target&) { return judged(ioperm(0xcf8, 8, 1)); }});
}

}  // namespace postern::hostile
