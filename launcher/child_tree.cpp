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

/// In the old root, while the new one is made: a folder that every proc has, on which nobody depends.
constexpr char kScratchPlace[] = "/proc/tty";
constexpr char kScratchFile[] = "/proc/tty/data";

/// "/proc/self/fd/N", as a path for what takes no fd.
class FdPath {
  public:
    explicit FdPath(int fd) {
        char digits[12];
        int count = 0;
        do digits[count++] = static_cast<char>('0' + fd % 10);
        while ((fd /= 10) > 0);
        while (count > 0) text_[length_++] = digits[--count];
        text_[length_] = '\0';
    }
    [[nodiscard]] const char* text() const { return text_; }
    [[nodiscard]] std::size_t length() const { return length_; }

  private:
    char text_[32] = "/proc/self/fd/";
    std::size_t length_ = sizeof "/proc/self/fd/" - 1;
};

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

/// Modes of what is made: of the last component, and of the folders on the way.
struct NewModes {
    mode_t leaf = 0755;
    mode_t parents = 0755;
};

/// What is for few must not lie in folders made for all.
mode_t parent_mode(int mode) {
    mode_t parents = 0755;
    if (mode >= 0 && (mode & 0070) == 0) parents &= ~static_cast<mode_t>(0050);
    if (mode >= 0 && (mode & 0007) == 0) parents &= ~static_cast<mode_t>(0005);
    return parents;
}

bool may_make_in(const ChildPlan& child, int folder) {
    return child.make_targets || is_own(child, folder);
}

/// Opens the target of a step and makes it, with the folders on the way, where that is in a tmpfs of ours (or
/// anywhere, if that was asked for). Leaf::Parent stops at the folder that the last component goes into.
int open_or_make(ChildPlan& child, int root, const std::string& target, Leaf leaf, bool follow_links,
                 NewModes modes = {}) {
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
            if (!may_make_in(child, folder)) {
                errno = ENOENT;
            } else if (last && leaf == Leaf::File) {
                entered = ::openat(folder, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
            } else if (::mkdirat(folder, name, last ? modes.leaf : modes.parents) == 0) {
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

bool is_root(const std::string& target) {
    return target.find_first_not_of('/') == std::string::npos;
}

bool is_link(int root, const std::string& target) {
    const int there = sys::openat2(root, target.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC,
                                   RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    struct stat status = {};
    const bool is = there >= 0 && ::fstat(there, &status) == 0 && S_ISLNK(status.st_mode);
    if (there >= 0) ::close(there);
    return is;
}

/// A mount on "/" is the root from then on: lookups that begin at the old one would not see it.
bool attach_as_root(ChildPlan& child, int& root, int mount, StepFailure& failure) {
    if (sys::move_mount(mount, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return failed_and_close(failure, "move_mount", mount);
    ::close(root);
    root = mount;
    ++child.covered_roots;
    return true;
}

bool attach(ChildPlan& child, int& root, const MountStep& step, int mount, StepFailure& failure) {
    if (is_root(step.target)) return attach_as_root(child, root, mount, failure);
    if (child.make_targets && is_link(root, step.target)) {
        errno = ELOOP;
        return failed_and_close(failure, "openat2", mount);
    }
    const Leaf leaf = is_folder(mount) ? Leaf::Folder : Leaf::File;
    const int target =
        open_or_make(child, root, step.target, leaf, !step.optional_target, {0755, parent_mode(step.mode)});
    if (target < 0) {
        const int errnum = errno;
        ::close(mount);
        errno = errnum;
        return is_skipped(step, errnum) || failed(failure, "openat2");
    }
    const int moved =
        sys::move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    // The kernel's word for it, EINVAL, is its word for much else, too.
    if (moved != 0 && errno == EINVAL && is_folder(target) != (leaf == Leaf::Folder))
        errno = leaf == Leaf::Folder ? ENOTDIR : EISDIR;
    const int errnum = errno;
    if (moved == 0 && step.kind == MountStep::Kind::Tmpfs) remember_own(child, mount);
    ::close(target);
    if (moved == 0 && step.has_covers) {
        child.proc_tree = mount;
    } else {
        ::close(mount);
    }
    errno = errnum;
    return moved == 0 || failed(failure, "move_mount");
}

void copy_text(char (&out)[256], std::size_t at, const char* text) {
    for (; at + 1 < sizeof out && *text != '\0'; ++at) out[at] = *text++;
    out[at] = '\0';
}

/// The link that is there already: right, or what it is instead.
bool is_same_link(int folder, const MountStep& step, StepFailure& failure) {
    char text[4096];
    const ssize_t length = ::readlinkat(folder, leaf_name(step.target), text, sizeof text - 1);
    if (length < 0) {
        copy_text(failure.detail, 0, "destination exists and is not a symlink");
        errno = EEXIST;
        return failed(failure, "symlinkat");
    }
    text[length] = '\0';
    if (step.source == text) return true;
    constexpr char kBegin[] = "existing destination is ";
    copy_text(failure.detail, 0, kBegin);
    copy_text(failure.detail, sizeof kBegin - 1, text);
    errno = EEXIST;
    return failed(failure, "symlinkat");
}

/// All that `from` has, to its end.
bool copy_data(int from, int to, StepFailure& failure) {
    char buffer[16384];
    while (true) {
        const ssize_t got = ::read(from, buffer, sizeof buffer);
        if (got == 0) return true;
        if (got < 0) return failed(failure, "read");
        for (ssize_t done = 0; done < got;) {
            const ssize_t put = ::write(to, buffer + done, static_cast<std::size_t>(got - done));
            if (put < 0) return failed(failure, "write");
            done += put;
        }
    }
}

bool make_file(ChildPlan& child, int root, const MountStep& step, StepFailure& failure) {
    const int folder =
        open_or_make(child, root, step.target, Leaf::Parent, true, {0755, parent_mode(step.mode)});
    if (folder < 0) return failed(failure, "openat2");
    if (!may_make_in(child, folder)) {
        errno = EROFS;
        return failed_and_close(failure, "openat", folder);
    }
    const auto mode = static_cast<mode_t>(step.mode >= 0 ? step.mode : 0666);
    const int file =
        ::openat(folder, leaf_name(step.target), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file < 0) return failed_and_close(failure, "openat", folder);
    ::close(folder);
    if (!copy_data(step.fd, file, failure)) return failed_and_close(failure, failure.call, file);
    ::close(file);
    return true;
}

/// A file that has no path: in a tmpfs that is mounted for a moment where the old root still is, since only
/// of what is mounted somewhere can a clone be had (Linux before 6.15).
bool make_data(const MountStep& step, int& tree, StepFailure& failure) {
    MountStep scratch;
    int mount = -1;
    if (!make_file_system("tmpfs", scratch, mount, failure)) return false;
    if (sys::move_mount(mount, "", AT_FDCWD, kScratchPlace, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return failed_and_close(failure, "move_mount", mount);
    const int file = ::openat(mount, "data", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool made = file >= 0 || failed(failure, "openat");
    made = made && copy_data(step.fd, file, failure);
    made = made && (::fchmod(file, static_cast<mode_t>(step.mode)) == 0 || failed(failure, "fchmod"));
    made = made && clone_tree(kScratchFile, false, step.attributes, tree, failure);
    const int errnum = errno;
    if (file >= 0) ::close(file);
    // Not unlinked, for what is cannot be mounted. No path leads to the folder that it is in.
    ::umount2(kScratchPlace, MNT_DETACH);
    ::close(mount);
    errno = errnum;
    return made;
}

bool make_folder(ChildPlan& child, int root, const MountStep& step, StepFailure& failure) {
    const auto mode = static_cast<mode_t>(step.mode >= 0 ? step.mode : 0755);
    const int folder = open_or_make(child, root, step.target, Leaf::Folder, !step.optional_target,
                                    {mode, parent_mode(step.mode)});
    if (folder < 0) return is_skipped(step, errno) || failed(failure, "mkdirat");
    const bool is = is_folder(folder);
    ::close(folder);
    errno = ENOTDIR;
    return is || failed(failure, "mkdirat");
}

bool change_mode(int root, const MountStep& step, StepFailure& failure) {
    const int there = open_inside(root, step.target.c_str(), true);
    if (there < 0) return failed(failure, "openat2");
    const FdPath path(there);
    if (::chmod(path.text(), static_cast<mode_t>(step.mode)) != 0)
        return failed_and_close(failure, "chmod", there);
    ::close(there);
    return true;
}

/// Nothing to do where it is not there. Looked for in the proc itself and not by its path: that may lead over
/// links, and who owns the root's folder could make it lead elsewhere by now.
bool cover(int proc, const MountStep& step, StepFailure& failure) {
    if (proc < 0) return true;
    const int there = open_inside(proc, step.source.c_str(), false);
    if (there < 0) return errno == ENOENT || failed(failure, "openat2");
    const FdPath path(there);
    if (step.only_if_writable && ::access(path.text(), W_OK) != 0) {
        ::close(there);
        return true;
    }
    const int tree = sys::open_tree(there, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (tree < 0) return failed_and_close(failure, "open_tree", there);
    mount_attr wanted = {};
    wanted.attr_set = step.attributes;
    bool covered =
        sys::mount_setattr(tree, "", AT_EMPTY_PATH, wanted) == 0 || failed(failure, "mount_setattr");
    covered = covered &&
              (sys::move_mount(tree, "", there, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0 ||
               failed(failure, "move_mount"));
    const int errnum = errno;
    ::close(tree);
    ::close(there);
    errno = errnum;
    return covered;
}

bool make_link(ChildPlan& child, int root, const MountStep& step, StepFailure& failure) {
    const int folder = open_or_make(child, root, step.target, Leaf::Parent, !step.optional_target);
    if (folder < 0) return is_skipped(step, errno) || failed(failure, "openat2");
    if (!may_make_in(child, folder)) {
        ::close(folder);
        errno = EROFS;
        return step.optional_target || failed(failure, "symlinkat");
    }
    bool made = ::symlinkat(step.source.c_str(), folder, leaf_name(step.target)) == 0;
    if (!made) made = errno == EEXIST ? is_same_link(folder, step, failure) : failed(failure, "symlinkat");
    if (!made) return failed_and_close(failure, failure.call, folder);
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

bool do_step(ChildPlan& child, int& root, const MountStep& step, int source, StepFailure& failure) {
    int mount = -1;
    if (step.has_covers) child.proc_tree = -1;
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
        case MountStep::Kind::Mqueue:
            return make_file_system("mqueue", step, mount, failure) &&
                   attach(child, root, step, mount, failure);
        case MountStep::Kind::Directory:
            return make_folder(child, root, step, failure);
        case MountStep::Kind::File:
            return make_file(child, root, step, failure);
        case MountStep::Kind::Data:
            return make_data(step, mount, failure) && attach(child, root, step, mount, failure);
        case MountStep::Kind::Chmod:
            return change_mode(root, step, failure);
        case MountStep::Kind::Cover:
            return cover(child.proc_tree, step, failure);
        case MountStep::Kind::Symlink:
            return make_link(child, root, step, failure);
        case MountStep::Kind::Seal:
            return seal(root, step, failure);
    }
    return true;
}

/// mount(2)'s options; its page is all that there is.
class Options {
  public:
    void add(const char* first, const char* second) {
        for (const char* text : {first, second}) {
            for (; *text != '\0'; ++text) {
                if (length_ + 1 < sizeof text_) text_[length_] = *text;
                ++length_;
            }
        }
        text_[length_ < sizeof text_ ? length_ : sizeof text_ - 1] = '\0';
    }
    [[nodiscard]] bool fits() const { return length_ < sizeof text_; }
    [[nodiscard]] const char* text() const { return text_; }

  private:
    char text_[4096] = {};
    std::size_t length_ = 0;
};

/// The folders of an overlay, opened. Named by fd, so that no character of a path is one of the options'.
class Layers {
  public:
    Layers() = default;
    Layers(const Layers&) = delete;
    Layers& operator=(const Layers&) = delete;
    ~Layers() {
        const int errnum = errno;
        for (std::size_t i = 0; i < count_; ++i) ::close(lower_[i]);
        for (const int fd : {upper_, work_}) {
            if (fd >= 0) ::close(fd);
        }
        errno = errnum;
    }

    bool open(const MountStep& step, StepFailure& failure) {
        for (const std::string& layer : step.lower) {
            const int fd = ::open(layer.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
            if (fd < 0) return failed(failure, "open");
            lower_[count_++] = fd;
        }
        if (step.scratch && !make_scratch(failure)) return false;
        const std::string& upper = step.upper;
        if (upper.empty()) return true;
        upper_ = ::open(upper.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
        work_ = ::open(step.work.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
        return (upper_ >= 0 && work_ >= 0) || failed(failure, "open");
    }

    void write(Options& options) const {
        for (std::size_t i = 0; i < count_; ++i)
            options.add(i == 0 ? "lowerdir=" : ":", FdPath(lower_[i]).text());
        if (upper_ < 0) return;
        options.add(",upperdir=", FdPath(upper_).text());
        options.add(",workdir=", FdPath(work_).text());
    }

    /// fsconfig(2) takes 255 bytes a string: some 14 layers.
    bool set(int fs, StepFailure& failure) const {
        Options lower;
        for (std::size_t i = 0; i < count_; ++i) lower.add(i == 0 ? "" : ":", FdPath(lower_[i]).text());
        if (sys::fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir", lower.text()) != 0)
            return failed(failure, "fsconfig");
        if (upper_ < 0) return true;
        return (sys::fsconfig(fs, FSCONFIG_SET_STRING, "upperdir", FdPath(upper_).text()) == 0 &&
                sys::fsconfig(fs, FSCONFIG_SET_STRING, "workdir", FdPath(work_).text()) == 0) ||
               failed(failure, "fsconfig");
    }

    /// The scratch folders are gone from the tree; the overlay, if there is one, holds them.
    bool leave(bool result) const {
        const int errnum = errno;
        if (has_scratch_) ::umount2(kScratchPlace, MNT_DETACH);
        errno = errnum;
        return result;
    }

  private:
    bool make_scratch(StepFailure& failure) {
        int mount = -1;
        if (!make_file_system("tmpfs", MountStep{}, mount, failure)) return false;
        if (sys::move_mount(mount, "", AT_FDCWD, kScratchPlace, MOVE_MOUNT_F_EMPTY_PATH) != 0)
            return failed_and_close(failure, "move_mount", mount);
        has_scratch_ = true;
        const bool made = ::mkdirat(mount, "upper", 0755) == 0 && ::mkdirat(mount, "work", 0755) == 0;
        if (made) {
            upper_ = ::openat(mount, "upper", O_PATH | O_DIRECTORY | O_CLOEXEC);
            work_ = ::openat(mount, "work", O_PATH | O_DIRECTORY | O_CLOEXEC);
        }
        if (upper_ < 0 || work_ < 0) return leave(failed_and_close(failure, "mkdirat", mount));
        ::close(mount);
        return true;
    }

    int lower_[MountStep::kMaxLayers] = {};
    std::size_t count_ = 0;
    int upper_ = -1;
    int work_ = -1;
    bool has_scratch_ = false;
};

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
    struct stat status = {};
    if (step.fd >= 0 && (::fstat(tree, &status) != 0 || status.st_dev != step.must_device ||
                         status.st_ino != step.must_inode)) {
        errno = ESTALE;
        const bool result = failed_and_close(failure, "open_tree", tree);
        tree = -1;
        return result;
    }
    return !asks_for_suid(step) || gives_suid(tree, failure);
}

bool make_overlay_as_launcher(const MountStep& step, int& tree, StepFailure& failure) {
    Layers layers;
    if (!layers.open(step, failure)) return false;
    const int fs = sys::fsopen("overlay");
    if (fs < 0) return failed(failure, "fsopen");
    bool set = layers.set(fs, failure);
    for (const auto& [key, value] : step.parameters) {
        set = set && (sys::fsconfig(fs, FSCONFIG_SET_FLAG, key.c_str(), nullptr) == 0 ||
                      failed(failure, "fsconfig"));
    }
    set =
        set && (sys::fsconfig(fs, FSCONFIG_CMD_CREATE, nullptr, nullptr) == 0 || failed(failure, "fsconfig"));
    if (set) {
        tree = sys::fsmount(fs, static_cast<unsigned>(step.attributes));
        set = tree >= 0 || failed(failure, "fsmount");
    }
    const int errnum = errno;
    ::close(fs);
    errno = errnum;
    return set;
}

bool make_overlay_as_client(const MountStep& step, bool own_xattr, int& tree, StepFailure& failure) {
    Layers layers;
    if (!layers.open(step, failure)) return false;
    Options options;
    layers.write(options);
    for (const auto& [key, value] : step.parameters) options.add(",", key.c_str());
    if (own_xattr) options.add(",", "userxattr");
    if (!options.fits()) {
        errno = E2BIG;
        return failed(failure, "mount");
    }
    // mount(2) needs a place in the tree for a moment; this tree is the child's alone, and /proc is always
    // there.
    const bool mounted = ::mount("overlay", "/proc", "overlay", 0, options.text()) == 0;
    if (!mounted) return layers.leave(failed(failure, "mount"));
    const bool cloned = clone_tree("/proc", false, step.attributes, tree, failure);
    const int errnum = errno;
    ::umount2("/proc", MNT_DETACH);
    errno = errnum;
    return layers.leave(cloned);
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

bool attach_mounts(ChildPlan& child, int& root, StepFailure& failure) {
    for (std::size_t i = 0; i < child.mounts.steps.size(); ++i) {
        if (!do_step(child, root, child.mounts.steps[i], child.sources[i], failure)) {
            failure.item = static_cast<int>(i);
            return false;
        }
    }
    return true;
}

bool enter_root(const ChildPlan& child, int root, StepFailure& failure) {
    if (::fchdir(root) != 0) return failed(failure, "fchdir");
    // pivot_root(2), "pivot_root(".", ".")": the old root lands on top of the new one and "." then names it.
    if (sys::pivot_root(".", ".") != 0) return failed(failure, "pivot_root");
    // On the old root lies what "/" was until something else was mounted there: each goes by itself.
    for (unsigned i = 0; i <= child.covered_roots; ++i) {
        if (::umount2(".", MNT_DETACH) != 0) return failed(failure, "umount2");
    }
    if (::chdir("/") != 0) return failed(failure, "chdir");
    ::close(root);
    return true;
}

}  // namespace postern
