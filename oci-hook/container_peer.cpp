// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/container_peer.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>

#include "broker-core/cgroup_file.h"
#include "broker-core/cgroup_path.h"
#include "broker-core/peer.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace postern {
namespace {

/// The kernel nests no more (MAX_PID_NS_LEVEL).
constexpr unsigned kMostNested = 32;

Result<UniqueFd> pid_namespace_of(pid_t pid) {
    const std::string path = fmt::format("/proc/{}/ns/pid", pid);
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        const int error = errno;
        return fail_errno(error, "cannot open {}", path);
    }
    return fd;
}

uint64_t inode_of(int fd) {
    struct stat found {};
    return ::fstat(fd, &found) == 0 ? found.st_ino : 0;
}

}  // namespace

Result<ContainerIdentity> read_identity(pid_t pid) {
    POSTERN_ASSIGN(const CgroupPath cgroup,
                   own_cgroup(read_cgroup_file("/proc/self/mountinfo"),
                              read_cgroup_file(fmt::format("/proc/{}/cgroup", pid))));
    POSTERN_ASSIGN(const UniqueFd pid_namespace, pid_namespace_of(pid));
    return ContainerIdentity{cgroup.folder, inode_of(pid_namespace.get())};
}

bool is_within(std::string_view folder, std::string_view above) {
    return folder.starts_with(above) && (folder.size() == above.size() || folder[above.size()] == '/');
}

Result<bool> is_pid_namespace_within(pid_t pid, uint64_t above) {
    POSTERN_ASSIGN(UniqueFd current, pid_namespace_of(pid));
    for (unsigned level = 0; level < kMostNested; ++level) {
        if (inode_of(current.get()) == above) return true;
        UniqueFd parent(::ioctl(current.get(), NS_GET_PARENT));
        // EPERM: it would be above our own.
        if (!parent) return false;
        current = std::move(parent);
    }
    return false;
}

Result<UniqueFd> peer_process(int socket) {
    int pidfd = -1;
    socklen_t size = sizeof pidfd;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0) return UniqueFd(pidfd);
    const int error = errno;
    if (error != ENOPROTOOPT) return fail_errno(error, "SO_PEERPIDFD");
    ucred credentials{};
    size = sizeof credentials;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        const int other = errno;
        return fail_errno(other, "SO_PEERCRED");
    }
    return pidfd_of(credentials.pid);
}

Status check_container_peer(int socket, const ContainerIdentity& container) {
    POSTERN_ASSIGN(const UniqueFd process, peer_process(socket));
    POSTERN_ASSIGN(const pid_t pid, pid_of(process.get()));
    if (pid == 0) return fail("it has ended, or is not to be seen from here");
    POSTERN_ASSIGN(const ContainerIdentity peer, read_identity(pid));
    POSTERN_ASSIGN(const bool same_pids, is_pid_namespace_within(pid, container.pid_namespace));
    // What was read is of the number: it was this process's as long as that lives.
    if (has_ended(process.get())) return fail("it has ended");
    if (!is_within(peer.cgroup, container.cgroup))
        return fail("pid {} is in the cgroup {}, and not in the container's, {}", pid, peer.cgroup,
                    container.cgroup);
    if (!same_pids) return fail("pid {} is in the container's cgroup, and not in its pid namespace", pid);
    return {};
}

}  // namespace postern
