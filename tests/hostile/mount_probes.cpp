// SPDX-License-Identifier: Apache-2.0
// The mount table: every call that could show more of the host, or make it writable.
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

/// Outside, where these succeed, they must not touch the machine's own mounts: a namespace for this child
/// alone.
bool isolated(const Target& target) {
    if (!target.outside) return true;
    return unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

using Action = Attempt (*)(const std::string& folder);

/// In a folder of its own. It is left to the mount namespace's end outside, and is removed where nothing was
/// mounted.
Attempt in_folder(const Target& target, Action action) {
    if (!isolated(target)) return preparation_failed("a mount namespace");
    const std::string folder = scratch_folder();
    if (folder.empty()) return preparation_failed("a folder to write in");
    Attempt attempt = action(folder);
    (void)umount2(folder.c_str(), MNT_DETACH);
    (void)rmdir(folder.c_str());
    return attempt;
}

Attempt mount_tmpfs(const std::string& folder) {
    return judged(mount("tmpfs", folder.c_str(), "tmpfs", 0, nullptr));
}

Attempt mount_proc(const std::string& folder) {
    return judged(mount("proc", folder.c_str(), "proc", 0, nullptr));
}

Attempt mount_sysfs(const std::string& folder) {
    return judged(mount("sysfs", folder.c_str(), "sysfs", 0, nullptr));
}

Attempt mount_bpffs(const std::string& folder) {
    return judged(mount("bpf", folder.c_str(), "bpf", 0, nullptr));
}

Attempt bind_root(const std::string& folder) {
    return judged(mount("/", folder.c_str(), nullptr, MS_BIND | MS_REC, nullptr));
}

Attempt remount_root(const std::string&) {
    return judged(mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND, nullptr));
}

Attempt make_shared(const std::string&) {
    return judged(mount(nullptr, "/", nullptr, MS_SHARED, nullptr));
}

Attempt unmount_proc(const std::string&) {
    return judged(umount2("/proc", MNT_DETACH));
}

Attempt open_file_system(const std::string&) {
    const UniqueFd fd(static_cast<int>(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
    return judged(fd.get());
}

Attempt pick_file_system(const std::string&) {
    const UniqueFd fd(static_cast<int>(syscall(SYS_fspick, AT_FDCWD, "/", FSPICK_CLOEXEC)));
    return judged(fd.get());
}

Attempt clone_tree(const std::string&) {
    const UniqueFd fd(static_cast<int>(
        syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)));
    return judged(fd.get());
}

Attempt move_tree(const std::string& folder) {
    // Outside there is a mount to move; inside no mount(2) succeeds, and the refusal comes before the look at
    // it.
    (void)mount("tmpfs", folder.c_str(), "tmpfs", 0, nullptr);
    const std::string there = folder + "-moved";
    if (mkdir(there.c_str(), 0700) != 0) return preparation_failed("mkdir");
    const long moved = syscall(SYS_move_mount, AT_FDCWD, folder.c_str(), AT_FDCWD, there.c_str(), 0);
    Attempt attempt = judged(moved);
    (void)umount2(there.c_str(), MNT_DETACH);
    (void)rmdir(there.c_str());
    return attempt;
}

Attempt set_attributes(const std::string&) {
    mount_attr attributes{};
    attributes.attr_clr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV;
    return judged(syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attributes, sizeof attributes));
}

Attempt pivot(const std::string& folder) {
    // The old root goes below the new one, which must be a mount.
    (void)mount("tmpfs", folder.c_str(), "tmpfs", 0, nullptr);
    const std::string old = folder + "/old";
    if (mkdir(old.c_str(), 0700) != 0) return preparation_failed("mkdir");
    Attempt attempt = judged(syscall(SYS_pivot_root, folder.c_str(), old.c_str()));
    (void)rmdir(old.c_str());
    return attempt;
}

Attempt change_root(const std::string& folder) {
    return judged(chroot(folder.c_str()));
}

}  // namespace

void add_mount_probes(Probes& probes) {
    const char* old_proc = "a fresh one may only be mounted where a whole one is in sight";
    const struct {
        const char* name;
        const char* what;
        Action action;
        std::vector<int> inherent;
        const char* why;
    } ways[] = {
        {"mount-tmpfs", "mount of a tmpfs in /tmp", mount_tmpfs, {}, ""},
        {"mount-proc", "mount of a fresh proc", mount_proc, {}, old_proc},
        {"mount-sysfs", "mount of a fresh sysfs", mount_sysfs, {}, old_proc},
        {"mount-bpf", "mount of a bpf file system", mount_bpffs, {}, ""},
        {"mount-bind", "recursive bind mount of /", bind_root, {}, ""},
        {"remount-root", "remount of / as writable", remount_root, {}, ""},
        {"mount-shared", "propagation of mounts to the host", make_shared, {}, ""},
        {"umount-proc", "umount of /proc, to see what is below", unmount_proc, {}, ""},
        {"fsopen", "fsopen of a tmpfs", open_file_system, {}, ""},
        {"fspick", "fspick of /, to reconfigure it", pick_file_system, {}, ""},
        {"open-tree", "open_tree: a clone of /", clone_tree, {}, ""},
        {"move-mount", "move_mount", move_tree, {}, ""},
        {"mount-setattr", "mount_setattr: / writable, with devices", set_attributes, {}, ""},
        {"pivot-root", "pivot_root", pivot, {EINVAL}, "not from an initial ramfs, nor to a shared mount"},
        {"chroot", "chroot", change_root, {}, ""},
    };
    for (const auto& way : ways) {
        probes.push_back({.name = way.name,
                          .group = "mounts",
                          .what = way.what,
                          .attempt = [action = way.action](const Target& t) { return in_folder(t, action); },
                          .inherent = way.inherent,
                          .inherent_why = way.inherent.empty() ? "" : way.why});
    }
}

}  // namespace postern::hostile
