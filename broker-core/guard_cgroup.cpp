// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

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
    errno = EOPNOTSUPP;  // and not that the sandbox is gone
    return {};
}

bool is_gone(int error) {
    return error == ESTALE || error == ENOENT || error == ENODEV;
}

/// The whole of a file of kernfs; false with errno.
bool read_at(int folder, const char* name, std::string& text) {
    const UniqueFd file(::openat(folder, name, O_RDONLY | O_CLOEXEC));
    if (!file) return false;
    char piece[4096];
    ssize_t got = 0;
    while ((got = ::read(file.get(), piece, sizeof piece)) > 0) text.append(piece, static_cast<size_t>(got));
    return got == 0;
}

/// Adds the processes of the folder and of those below it; false with errno.
bool collect(int folder, std::vector<pid_t>& found) {
    std::string text;
    if (!read_at(folder, "cgroup.procs", text)) return false;
    for (const char* at = text.c_str(); *at != '\0';) {
        char* end = nullptr;
        const long pid = std::strtol(at, &end, 10);
        if (end == at) break;
        found.push_back(static_cast<pid_t>(pid));
        at = *end == '\n' ? end + 1 : end;
    }
    UniqueFd copy(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!copy) return false;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(copy.get()), ::closedir);
    if (!entries) return false;
    (void)copy.release();  // closedir(3) closes it
    while (const dirent* entry = ::readdir(entries.get())) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
        const UniqueFd below(::openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        // Removed meanwhile: nobody is in it.
        if (below && !collect(below.get(), found) && !is_gone(errno)) return false;
    }
    return true;
}

}  // namespace

UniqueFd open_cgroup(uint64_t id) {
    const UniqueFd root = open_cgroup_root();
    if (!root) return {};
    alignas(file_handle) char space[sizeof(file_handle) + sizeof id] = {};
    auto* handle = reinterpret_cast<file_handle*>(space);
    handle->handle_bytes = sizeof id;
    handle->handle_type = kKernfsHandle;
    std::memcpy(handle->f_handle, &id, sizeof id);
    UniqueFd folder(::open_by_handle_at(root.get(), handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const int error = errno;
    if (folder) return folder;
    errno = error;
    return {};
}

CgroupState cgroup_state(uint64_t id) {
    const UniqueFd folder = open_cgroup(id);
    if (!folder) return errno == ESTALE ? CgroupState::Gone : CgroupState::Unknown;
    std::string events;
    // Removed between the two steps.
    if (!read_at(folder.get(), "cgroup.events", events)) {
        return is_gone(errno) ? CgroupState::Gone : CgroupState::Unknown;
    }
    if (events.find("populated 1") != std::string::npos) return CgroupState::Populated;
    return events.find("populated 0") != std::string::npos ? CgroupState::Empty : CgroupState::Unknown;
}

Result<std::vector<pid_t>> cgroup_processes(uint64_t id) {
    std::vector<pid_t> found;
    const UniqueFd folder = open_cgroup(id);
    if (folder && collect(folder.get(), found)) {
        std::sort(found.begin(), found.end());
        return found;
    }
    const int error = errno;
    if (is_gone(error)) return std::vector<pid_t>();
    return fail_errno(error, "cannot read who is in the cgroup with id {}", id);
}

Status kill_cgroup(uint64_t id) {
    const UniqueFd folder = open_cgroup(id);
    const UniqueFd kill(folder ? ::openat(folder.get(), "cgroup.kill", O_WRONLY | O_CLOEXEC) : -1);
    if (!kill || ::write(kill.get(), "1", 1) != 1) {
        const int error = errno;
        if (is_gone(error)) return {};
        return fail_errno(error, "cannot kill the cgroup with id {}", id);
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (cgroup_state(id) == CgroupState::Populated) {
        if (std::chrono::steady_clock::now() > deadline) {
            return fail(
                "the cgroup with id {} was killed, and 10 seconds later somebody is still in it: a "
                "process that waits inside the kernel?",
                id);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return {};
}

}  // namespace postern
