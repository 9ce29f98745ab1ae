// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/container_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "broker-core/packet.h"
#include "broker-core/runtime_dir.h"
#include "broker-core/scope_guard.h"

namespace postern {
namespace {

/// Held while a folder is made or removed: the end of a container and its next start may meet.
Result<UniqueFd> lock_containers() {
    UniqueFd folder(::open(kContainersDir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!folder) {
        const int error = errno;
        return fail_errno(error, "cannot open {}", kContainersDir);
    }
    if (::flock(folder.get(), LOCK_EX) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot lock {}", kContainersDir);
    }
    return folder;
}

Status make_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
    const int error = errno;
    return fail_errno(error, "cannot make {}", path);
}

void remove_both(const std::string& folder, const std::string& socket) {
    (void)::unlink(socket.c_str());
    (void)::rmdir(folder.c_str());
}

}  // namespace

ContainerFolder::ContainerFolder(const ContainerState& state)
    : path_(fmt::format("{}/{}", kContainersDir, container_folder_name(state))) {}

Result<UniqueFd> ContainerFolder::listen() {
    POSTERN_TRY(make_runtime_dir());
    POSTERN_TRY(make_folder(kContainersDir));
    POSTERN_ASSIGN(const UniqueFd lock, lock_containers());
    remove_both(path_, socket_path());
    POSTERN_TRY(make_folder(path_));
    ScopeGuard removes([this] { remove_both(path_, socket_path()); });
    POSTERN_ASSIGN(UniqueFd listener, listen_at(socket_path(), 0666));
    struct stat made {};
    if (::lstat(socket_path().c_str(), &made) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at {}", socket_path());
    }
    socket_ = made.st_ino;
    removes.dismiss();
    return listener;
}

void ContainerFolder::remove() const {
    const auto lock = lock_containers();
    struct stat there {};
    if (::lstat(socket_path().c_str(), &there) == 0 && there.st_ino != socket_) return;
    remove_both(path_, socket_path());
}

void ContainerFolder::remove(const ContainerState& state) {
    const ContainerFolder folder(state);
    const auto lock = lock_containers();
    remove_both(folder.path(), folder.socket_path());
}

}  // namespace postern
