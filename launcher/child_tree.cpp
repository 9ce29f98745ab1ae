// SPDX-License-Identifier: Apache-2.0
#include "launcher/child_tree.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "launcher/syscalls.h"

namespace postern {
namespace {

bool failed(StepFailure& failure, const char* call) {
    failure.call = call;
    return false;
}

bool failed_and_close(StepFailure& failure, const char* call, int fd) {
    const int errnum = errno;
    ::close(fd);
    errno = errnum;
    return failed(failure, call);
}

/// Clones what is mounted at `path`. Propagation is always cut: what the host mounts later must not appear
/// inside.
bool clone_tree(const char* path, bool recursive, std::uint64_t attributes, int& tree, StepFailure& failure) {
    const unsigned depth = recursive ? AT_RECURSIVE : 0U;
    const int fd = sys::open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth);
    if (fd < 0) return failed(failure, "open_tree");
    mount_attr wanted = {};
    wanted.attr_set = attributes;
    wanted.propagation = MS_PRIVATE;
    if (sys::mount_setattr(fd, "", AT_EMPTY_PATH | depth, wanted) != 0) {
        return failed_and_close(failure, "mount_setattr", fd);
    }
    tree = fd;
    return true;
}

bool make_file_system(const char* type, const MountStep& step, int& mount, StepFailure& failure) {
    const int fs = sys::fsopen(type);
    if (fs < 0) return failed(failure, "fsopen");
    for (const auto& [key, value] : step.parameters) {
        const int set = value.empty() ? sys::fsconfig(fs, FSCONFIG_SET_FLAG, key.c_str(), nullptr)
                                      : sys::fsconfig(fs, FSCONFIG_SET_STRING, key.c_str(), value.c_str());
        if (set != 0) {
            return failed_and_close(failure, "fsconfig", fs);
        }
    }
    if (sys::fsconfig(fs, FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) {
        return failed_and_close(failure, "fsconfig", fs);
    }
    const int fd = sys::fsmount(fs, static_cast<unsigned>(step.attributes));
    if (fd < 0) return failed_and_close(failure, "fsmount", fs);
    ::close(fs);
    mount = fd;
    return true;
}

bool is_own(const ChildPlan& child, int folder) {
    struct stat status = {};
    if (::fstat(folder, &status) != 0) return false;
    for (const dev_t device : child.own_devices) {
        if (device == status.st_dev) return true;
    }
    return false;
}

void remember_own(ChildPlan& child, int mount) {
    struct stat status = {};
    // Capacity was reserved by the launcher: this does not allocate.
    if (::fstat(mount, &status) == 0) child.own_devices.push_back(status.st_dev);
}

/// Opens `path` inside the tree at `root`. RESOLVE_IN_ROOT: absolute links and ".." in links end at this
/// root, so that a link in a folder which the client can write to does not lead a mount out of the sandbox.
int open_inside(int root, const char* path, bool follow_links) {
    constexpr std::uint64_t confined = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    return sys::openat2(root, path, O_PATH | O_CLOEXEC,
                        follow_links ? confined : confined | RESOLVE_NO_SYMLINKS);
}

enum class Leaf { Folder, File, Parent };

/// Opens the target of a step and makes it, with the folders on the way, where that is in a tmpfs of ours.
/// Leaf::Parent stops at the folder that the last component goes into.
int open_or_make(ChildPlan& child, int root, const std::string& target, Leaf leaf, bool follow_links) {
    if (leaf != Leaf::Parent) {
        const int there = open_inside(root, target.c_str(), follow_links);
        if (there >= 0 || errno != ENOENT) return there;
    }
    char path[4096];
    std::size_t length = 0;
    int folder = open_inside(root, "/", follow_links);
    while (folder >= 0) {
        std::size_t begin = length;
        while (target[begin] == '/') ++begin;
        std::size_t end = begin;
        while (end < target.size() && target[end] != '/') ++end;
        std::size_t next = end;
        while (next < target.size() && target[next] == '/') ++next;
        const bool last = next == target.size();
        if (last && leaf == Leaf::Parent) return folder;
        std::memcpy(path, target.data(), end);
        path[end] = '\0';
        const char* name = path + begin;
        int entered = open_inside(root, path, follow_links);
        if (entered < 0 && errno == ENOENT) {
            if (!is_own(child, folder)) {
                errno = ENOENT;
            } else if (last && leaf == Leaf::File) {
                entered = ::openat(folder, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
            } else if (::mkdirat(folder, name, 0755) == 0) {
                entered = open_inside(root, path, follow_links);
            }
        }
        const int errnum = errno;
        ::close(folder);
        errno = errnum;
        if (last) return entered;
        folder = entered;
        length = end;
    }
    return folder;
}

const char* leaf_name(const std::string& target) {
    return target.c_str() + target.rfind('/') + 1;
}

bool is_skipped(const MountStep& step, int errnum) {
    return step.optional_target && (errnum == ENOENT || errnum == ELOOP || errnum == ENOTDIR);
}

bool is_folder(int fd) {
    struct stat status = {};
    return ::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

bool attach(ChildPlan& child, int root, const MountStep& step, int mount, StepFailure& failure) {
    const Leaf leaf = is_folder(mount) ? Leaf::Folder : Leaf::File;
    const int target = open_or_make(child, root, step.target, leaf, !step.optional_target);
    if (target < 0) {
        const int errnum = errno;
        ::close(mount);
        errno = errnum;
        return is_skipped(step, errnum) || failed(failure, "openat2");
    }
    const int moved =
        sys::move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    const int errnum = errno;
    if (moved == 0 && step.kind == MountStep::Kind::Tmpfs) remember_own(child, mount);
    ::close(target);
    ::close(mount);
    errno = errnum;
    return moved == 0 || failed(failure, "move_mount");
}

bool make_link(ChildPlan& child, int root, const MountStep& step, StepFailure& failure) {
    const int folder = open_or_make(child, root, step.target, Leaf::Parent, !step.optional_target);
    if (folder < 0) return is_skipped(step, errno) || failed(failure, "openat2");
    if (!is_own(child, folder)) {
        ::close(folder);
        errno = EROFS;
        return step.optional_target || failed(failure, "symlinkat");
    }
    const int made = ::symlinkat(step.source.c_str(), folder, leaf_name(step.target));
    if (made != 0) return failed_and_close(failure, "symlinkat", folder);
    ::close(folder);
    return true;
}

bool seal(int root, const MountStep& step, StepFailure& failure) {
    const int target = open_inside(root, step.target.c_str(), !step.optional_target);
    if (target < 0) return is_skipped(step, errno) || failed(failure, "openat2");
    mount_attr wanted = {};
    wanted.attr_set = step.attributes;
    const unsigned depth = step.recursive ? AT_RECURSIVE : 0U;
    if (sys::mount_setattr(target, "", AT_EMPTY_PATH | depth, wanted) != 0) {
        // EINVAL: an optional mount was skipped, and this is a folder of the root itself, which is sealed
        // already.
        if (errno == EINVAL && step.optional_target) {
            ::close(target);
            return true;
        }
        return failed_and_close(failure, "mount_setattr", target);
    }
    ::close(target);
    return true;
}

bool do_step(ChildPlan& child, int root, const MountStep& step, int source, StepFailure& failure) {
    int mount = -1;
    switch (step.kind) {
        case MountStep::Kind::Bind:
        case MountStep::Kind::Overlay:
            return source < 0 || attach(child, root, step, source, failure);
        case MountStep::Kind::Tmpfs:
            return make_file_system("tmpfs", step, mount, failure) &&
                   attach(child, root, step, mount, failure);
        case MountStep::Kind::Proc:
            return make_file_system("proc", step, mount, failure) &&
                   attach(child, root, step, mount, failure);
        case MountStep::Kind::Devpts:
            return make_file_system("devpts", step, mount, failure) &&
                   attach(child, root, step, mount, failure);
        case MountStep::Kind::Directory: {
            const int folder = open_or_make(child, root, step.target, Leaf::Folder, !step.optional_target);
            if (folder < 0) return is_skipped(step, errno) || failed(failure, "mkdirat");
            ::close(folder);
            return true;
        }
        case MountStep::Kind::Symlink:
            return make_link(child, root, step, failure);
        case MountStep::Kind::Seal:
            return seal(root, step, failure);
    }
    return true;
}

/// Of the profile's binds only: without the option "suid" each is nosuid.
bool asks_for_suid(const MountStep& step) {
    return step.from_launcher && (step.attributes & MOUNT_ATTR_NOSUID) == 0;
}

/// A clone has the flags of its source. What is asked for and cannot be had is said, not left out.
bool gives_suid(int& tree, StepFailure& failure) {
    struct statvfs status = {};
    if (::fstatvfs(tree, &status) != 0) return failed(failure, "fstatvfs");
    if ((status.f_flag & ST_NOSUID) == 0) return true;
    ::close(tree);
    tree = -1;
    errno = EPERM;
    return failed(failure, "fstatvfs");
}

}  // namespace

bool open_bind(const MountStep& step, int& tree, StepFailure& failure) {
    if (!clone_tree(step.source.c_str(), step.recursive, step.attributes, tree, failure))
        return step.optional_source && errno == ENOENT;
    return !asks_for_suid(step) || gives_suid(tree, failure);
}

bool make_overlay_as_launcher(const MountStep& step, int& tree, StepFailure& failure) {
    return make_file_system("overlay", step, tree, failure);
}

bool make_overlay_as_client(const MountStep& step, int& tree, StepFailure& failure) {
    // mount(2) needs a place in the tree for a moment; this tree is the child's alone, and /proc is always
    // there.
    if (::mount("overlay", "/proc", "overlay", 0, step.data.c_str()) != 0) return failed(failure, "mount");
    const bool cloned = clone_tree("/proc", false, step.attributes, tree, failure);
    const int errnum = errno;
    ::umount2("/proc", MNT_DETACH);
    errno = errnum;
    return cloned;
}

bool open_target(const char* path, int& tree, StepFailure& failure) {
    return clone_tree(path, false, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, tree, failure);
}

bool open_root(const MountPlan& plan, int& tree, StepFailure& failure) {
    return clone_tree(plan.root_source.c_str(), true, plan.root_attributes, tree, failure);
}

bool make_new_root(const MountPlan& plan, ChildPlan& child, int& root, StepFailure& failure) {
    if (plan.root_is_tmpfs) {
        const int fs = sys::fsopen("tmpfs");
        if (fs < 0) return failed(failure, "fsopen");
        if (sys::fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755") != 0 ||
            sys::fsconfig(fs, FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) {
            return failed_and_close(failure, "fsconfig", fs);
        }
        root = sys::fsmount(fs, static_cast<unsigned>(plan.root_attributes));
        if (root < 0) return failed_and_close(failure, "fsmount", fs);
        ::close(fs);
        remember_own(child, root);
    } else if (root < 0 && !open_root(plan, root, failure)) {
        return false;
    }
    // On top of "/", which is always there: pivot_root(2) wants its new root to be a mount in this tree, and
    // nothing that is looked up from here on starts at "/".
    if (sys::move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return failed(failure, "move_mount");
    return true;
}

bool attach_mounts(ChildPlan& child, int root, StepFailure& failure) {
    for (std::size_t i = 0; i < child.mounts.steps.size(); ++i) {
        if (!do_step(child, root, child.mounts.steps[i], child.sources[i], failure)) {
            failure.item = static_cast<int>(i);
            return false;
        }
    }
    return true;
}

bool enter_root(int root, StepFailure& failure) {
    if (::fchdir(root) != 0) return failed(failure, "fchdir");
    // pivot_root(2), "pivot_root(".", ".")": the old root lands on top of the new one and "." then names it.
    if (sys::pivot_root(".", ".") != 0) return failed(failure, "pivot_root");
    if (::umount2(".", MNT_DETACH) != 0) return failed(failure, "umount2");
    if (::chdir("/") != 0) return failed(failure, "chdir");
    ::close(root);
    return true;
}

}  // namespace postern
