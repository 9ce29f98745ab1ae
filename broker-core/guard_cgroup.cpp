// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "broker-core/unique_fd.h"

namespace postern {
namespace {

/// FILEID_KERNFS, include/linux/exportfs.h
constexpr int kKernfsHandle = 0xfe;

UniqueFd open_cgroup_root() {
    for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
        struct statfs where {};
        if (::statfs(path, &where) == 0 && where.f_type == CGROUP2_SUPER_MAGIC) {
            return UniqueFd(::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        }
    }
    return {};
}

}  // namespace

CgroupState cgroup_state(uint64_t id) {
    const UniqueFd root = open_cgroup_root();
    if (!root) return CgroupState::Unknown;
    alignas(file_handle) char space[sizeof(file_handle) + sizeof id] = {};
    auto* handle = reinterpret_cast<file_handle*>(space);
    handle->handle_bytes = sizeof id;
    handle->handle_type = kKernfsHandle;
    std::memcpy(handle->f_handle, &id, sizeof id);
    const UniqueFd folder(::open_by_handle_at(root.get(), handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return errno == ESTALE ? CgroupState::Gone : CgroupState::Unknown;

    const UniqueFd events(::openat(folder.get(), "cgroup.events", O_RDONLY | O_CLOEXEC));
    // Removed between the two steps.
    if (!events) return errno == ENOENT || errno == ENODEV ? CgroupState::Gone : CgroupState::Unknown;
    char text[256] = {};
    const ssize_t got = ::read(events.get(), text, sizeof text - 1);
    if (got < 0) return errno == ENODEV ? CgroupState::Gone : CgroupState::Unknown;
    const std::string_view read(text, static_cast<size_t>(got));
    if (read.find("populated 1") != std::string_view::npos) return CgroupState::Populated;
    return read.find("populated 0") != std::string_view::npos ? CgroupState::Empty : CgroupState::Unknown;
}

}  // namespace postern
