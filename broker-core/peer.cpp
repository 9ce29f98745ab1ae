// SPDX-License-Identifier: Apache-2.0
#include "broker-core/peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "broker-core/cgroup_file.h"

namespace postern {
namespace {

constexpr size_t kMostGroups = 65536;

}  // namespace

Result<Peer> read_peer(int socket) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot ask who is at the other end of a socket");
    }
    Peer peer{credentials.pid, {credentials.uid, credentials.gid, {}}};
    std::vector<gid_t>& groups = peer.caller.groups;
    for (groups.resize(32); groups.size() <= kMostGroups;) {
        size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
        if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0) break;
        const int error = errno;
        if (error != ERANGE) return fail_errno(error, "cannot ask for the groups of a socket's other end");
        groups.resize(size / sizeof(gid_t));
    }
    groups.resize(size / sizeof(gid_t));
    return peer;
}

Result<pid_t> pid_of(int pidfd) {
    const std::string info = read_cgroup_file(fmt::format("/proc/self/fdinfo/{}", pidfd));
    constexpr std::string_view kLine = "\nPid:\t";
    const size_t at = info.find(kLine);
    if (at == std::string::npos) return fail("is no pidfd");
    const long pid = std::strtol(info.c_str() + at + kLine.size(), nullptr, 10);
    return pid > 0 ? static_cast<pid_t>(pid) : 0;
}

Result<UniqueFd> pidfd_of(pid_t pid) {
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd) {
        const int error = errno;
        return fail_errno(error, "pidfd_open of pid {}", pid);
    }
    return pidfd;
}

bool has_ended(int pidfd) {
    pollfd polled{pidfd, POLLIN, 0};
    return ::poll(&polled, 1, 0) != 0;
}

std::string command_name(pid_t pid) {
    std::string name = read_cgroup_file(fmt::format("/proc/{}/comm", pid));
    if (name.ends_with('\n')) name.pop_back();
    std::replace_if(
        name.begin(), name.end(),
        [](char letter) { return static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f; }, '?');
    return name;
}

}  // namespace postern
