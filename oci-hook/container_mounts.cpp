// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/container_mounts.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "broker-core/file.h"

namespace postern {
namespace {

Result<UniqueFd> open_namespace(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        const int error = errno;
        return fail_errno(error, "cannot open {}", path);
    }
    return fd;
}

Status enter(int mount_namespace, const char* whose) {
    if (::setns(mount_namespace, CLONE_NEWNS) == 0) return {};
    const int error = errno;
    return fail_errno(error, "cannot enter the mount namespace of {}", whose);
}

/// Does `work` there, and comes back. This process has one thread, else the kernel would refuse.
Status do_within(int there, int here, const std::function<Status()>& work) {
    POSTERN_TRY(enter(there, "the container"));
    Status done = work();
    POSTERN_TRY(enter(here, "this hook"));
    return done;
}

/// A path as the container will see it: its image's links lead nowhere out of it.
Result<UniqueFd> open_in_root(const std::string& root, const std::string& path) {
    const UniqueFd folder(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder) {
        const int error = errno;
        return fail_errno(error, "cannot open the container's root, {}", root);
    }
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    UniqueFd found(static_cast<int>(::syscall(SYS_openat2, folder.get(), path.c_str(), &how, sizeof how)));
    if (!found) {
        const int error = errno;
        return fail_errno(error, "{} of the container", path);
    }
    return found;
}

/// What is mounted upon the mount that `folder` is the root of stays in the container: where a runtime has
/// mounted it for a user namespace, it is still shared with the host's, and the host would have the socket,
/// too.
Status keep_to_container(int folder) {
    mount_attr attributes{};
    attributes.propagation = MS_PRIVATE;
    if (::mount_setattr(folder, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0) return {};
    const int error = errno;
    if (error == EINVAL) return fail("{} of the container is no mount", kContainerTarget);
    return fail_errno(error, "cannot make {} of the container private", kContainerTarget);
}

}  // namespace

std::string container_files() {
    return program_prefix() + "/libexec/postern/container";
}

Result<ContainerMounts> ContainerMounts::open(pid_t pid, const std::string& root) {
    POSTERN_ASSIGN(UniqueFd own, open_namespace("/proc/self/ns/mnt"));
    POSTERN_ASSIGN(UniqueFd container, open_namespace(fmt::format("/proc/{}/ns/mnt", pid)));
    struct stat ours {};
    struct stat theirs {};
    if (::fstat(own.get(), &ours) != 0 || ::fstat(container.get(), &theirs) != 0 ||
        ours.st_ino == theirs.st_ino) {
        return fail(
            "the container has no mount namespace of its own, so no socket can be its own; ask for its slice "
            "with "
            "postern-crun");
    }
    return ContainerMounts(std::move(own), std::move(container), root);
}

Status ContainerMounts::find_placeholder() {
    const std::string path = fmt::format("{}/{}", kContainerTarget, kGrantSocketName);
    const std::string source = fmt::format("{}/{}", container_files(), kGrantSocketName);
    struct stat expected {};
    if (::stat(source.c_str(), &expected) != 0) {
        const int error = errno;
        return fail_errno(error, "{}", source);
    }
    return do_within(container_.get(), own_.get(), [&]() -> Status {
        POSTERN_ASSIGN(const UniqueFd folder, open_in_root(root_, kContainerTarget));
        POSTERN_ASSIGN(UniqueFd found, open_in_root(root_, path));
        struct stat there {};
        if (::fstat(found.get(), &there) != 0) {
            const int error = errno;
            return fail_errno(error, "{} of the container", path);
        }
        if (S_ISSOCK(there.st_mode))
            return fail("the container has a slice already; one container can have one");
        if (there.st_dev != expected.st_dev || there.st_ino != expected.st_ino) {
            return fail(
                "{} of the container is not {}: something else is mounted there, or the specification is of "
                "another postern "
                "(`postern check` tells)",
                path, source);
        }
        POSTERN_TRY(keep_to_container(folder.get()));
        placeholder_ = std::move(found);
        return {};
    });
}

Status ContainerMounts::bind_socket(const std::string& path) {
    const UniqueFd tree(::open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    if (!tree) {
        const int error = errno;
        return fail_errno(error, "cannot copy the mount of {}", path);
    }
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    attributes.propagation = MS_PRIVATE;
    if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot make the mount of {} read-only", path);
    }
    return do_within(container_.get(), own_.get(), [&]() -> Status {
        if (::move_mount(tree.get(), "", placeholder_.get(), "",
                         MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0)
            return {};
        const int error = errno;
        return fail_errno(error, "cannot bind {} over {}/{} of the container", path, kContainerTarget,
                          kGrantSocketName);
    });
}

}  // namespace postern
