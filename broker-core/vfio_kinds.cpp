// SPDX-License-Identifier: Apache-2.0
#include "broker-core/vfio_kinds.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

#include "broker-core/pci.h"
#include "broker-core/unique_fd.h"

namespace postern {
namespace {

bool is_nobodys(int error) {
    return error == ENOENT || error == ENODEV || error == ENXIO || error == EACCES;
}

Status learn_node(Guard& guard, const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (file) return guard.learn(file.get());
    if (is_nobodys(errno)) return {};
    return fail_errno(
        errno, "cannot open {}, to have its kind refused in sandboxes; allow this process to (DeviceAllow=)",
        path);
}

/// A group can be open but once, and not while its device is owned by the cdev: its driver is asked for by
/// the node. The kernel has noted the driver there when somebody has tried to open it (fs/char_dev.c,
/// chrdev_open).
Status learn_group(Guard& guard, const std::string& path) {
    const UniqueFd tried(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (tried) return guard.learn(tried.get());
    if (is_nobodys(errno)) return {};
    const UniqueFd node(::open(path.c_str(), O_PATH | O_CLOEXEC));
    if (!node) return fail_errno(errno, "cannot look at {}", path);
    return guard.learn(node.get());
}

}  // namespace

Status learn_vfio_kinds(Guard& guard, const std::string& bdf) {
    for (const char* path : {"/dev/vfio/vfio", "/dev/iommu"}) POSTERN_TRY(learn_node(guard, path));
    const std::optional<int> group = iommu_group_of(bdf);
    if (!group) return {};
    return learn_group(guard, fmt::format("/dev/vfio/{}", *group));
}

}  // namespace postern
