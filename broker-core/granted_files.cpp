// SPDX-License-Identifier: Apache-2.0
#include "broker-core/granted_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "broker-core/duplicate_fd.h"
#include "broker-core/guarded_file.h"
#include "broker-core/manifest.h"
#include "broker-core/passed_fds.h"

namespace postern {
namespace {

enum class Kind { CharacterDevice, Memfd, Anonymous };

/// What the links in /proc/self/fd say of anonymous files whose every use comes to a hook. Of others, such as
/// BPF maps, timers or rings, that is not so.
constexpr std::array<std::string_view, 3> kAnonymous{"/dmabuf:", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:"};

/// Without them a client could cut the memory off under its owner, or change what others may do with it.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Result<Kind> kind_of(const struct stat& state, int seals, std::string_view link) {
    switch (state.st_mode & S_IFMT) {
        case S_IFCHR:
            return Kind::CharacterDevice;
        case 0:
            if (std::any_of(kAnonymous.begin(), kAnonymous.end(),
                            [link](std::string_view each) { return link.starts_with(each); })) {
                return Kind::Anonymous;
            }
            return fail(
                "is {}; the guard does not see all that can be done with it. Of anonymous files it takes "
                "dma-bufs, KVM's VMs and CPUs, and sealed memfds",
                link);
        case S_IFREG:
            // A file of tmpfs has F_SEAL_SEAL alone, those of other file systems have no seals.
            if (seals >= 0 && (seals & kSeals) == kSeals) return Kind::Memfd;
            return fail(
                "is no memfd sealed with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL; a file that can be "
                "resized cannot be guarded: seal it, or show it with a mount");
        default:
            return fail(
                "is neither a character device nor a memfd, dma-buf or VM; the guard does "
                "not "
                "see all that can be done with it: show it with a mount");
    }
}

Result<Kind> kind_of(int fd) {
    struct stat state {};
    if (::fstat(fd, &state) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at the file");
    }
    char link[64] = {};
    (void)::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), link, sizeof link - 1);
    return kind_of(state, ::fcntl(fd, F_GET_SEALS), link);
}

std::string context(const FileProfile& file, const std::string& profile) {
    return fmt::format("profile {}: file \"{}\"{}{}", profile, file.name, file.path.empty() ? "" : ": ",
                       file.path);
}

Status check_path(const std::string& path) {
    struct stat state {};
    if (::stat(path.c_str(), &state) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot be looked at");
    }
    // Whoever named a memfd's path would open it a second time: pass its fd.
    if (S_ISCHR(state.st_mode)) return {};
    return fail("is no character device; only these are opened by path");
}

/// What could be done with a memfd besides: it is memory, which other files than this one reach.
Status check_memfd(const FileProfile& file, int fd) {
    if (file.forward == Forward::Anyone) {
        return fail(
            "forward is \"anyone\": whoever receives a memfd outside of the sandbox can open it anew, "
            "without "
            "these limits; say \"sandbox\" or \"never\"");
    }
    const bool writable = (::fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    for (const Window& window : file.windows) {
        // Its mapping could be made writable (VM_MAYWRITE), and userfaultfd(2) fills holes of such without
        // asking.
        if (!writable || !window.by_mmap || window.access.write) continue;
        return fail(
            "window \"{}\" is mapped and has access \"r\", and the memfd is open for writing; pass one that "
            "is "
            "opened O_RDONLY by /proc/self/fd",
            window.name);
    }
    return {};
}

Result<UniqueFd> open_path(const FileProfile& file) {
    // Before it is opened: opening something else, a FIFO say, could wait forever.
    POSTERN_TRY(check_path(file.path));
    const int mode = file.access.write ? (file.access.read ? O_RDWR : O_WRONLY) : O_RDONLY;
    UniqueFd fd(::open(file.path.c_str(), mode | O_CLOEXEC | O_NOCTTY));
    if (!fd) {
        const int error = errno;
        return fail_errno(error, "cannot be opened");
    }
    return fd;
}

GuardWindow guard_window(const Window& window, unsigned slice) {
    GuardWindow made;
    made.offset = window.offset.at(slice);
    made.length = window.length;
    made.read = window.access.read;
    made.write = window.access.write;
    made.mmap = window.by_mmap;
    made.pread = window.by_pread;
    return made;
}

}  // namespace

Result<GrantedFiles> GrantedFiles::open(const Profile& profile) {
    GrantedFiles files;
    files.profile_ = profile.name;
    for (const FileProfile& file : profile.files) {
        const std::string where = context(file, profile.name);
        Source source{file, UniqueFd()};
        if (file.fd.empty()) {
            if (auto checked = check_path(file.path); !checked) return propagate(std::move(checked), where);
        } else {
            auto number = find_passed_fd(file.fd);
            if (!number) return propagate(std::move(number), where);
            auto kind = kind_of(*number);
            if (!kind) return propagate(std::move(kind), where);
            if (*kind == Kind::Memfd) {
                if (auto memfd = check_memfd(file, *number); !memfd)
                    return propagate(std::move(memfd), where);
            }
            auto passed = duplicate_fd(*number, fmt::format("fd {}", *number));
            if (!passed) return propagate(std::move(passed), where);
            source.passed = std::move(*passed);
        }
        files.files_.push_back(std::move(source));
    }
    return files;
}

Status GrantedFiles::add_to(Grant& grant, Guard& guard, const SandboxIdentity& sandbox) const {
    for (const Source& source : files_) {
        const FileProfile& file = source.file;
        const auto add = [&]() -> Status {
            UniqueFd fd;
            if (source.passed) {
                POSTERN_ASSIGN(fd, duplicate_fd(source.passed.get(), "it"));
            } else {
                POSTERN_ASSIGN(fd, open_path(file));
            }
            POSTERN_ASSIGN(const Kind kind, kind_of(fd.get()));
            FilePolicy policy;
            policy.grant = grant.id;
            policy.device = "file." + file.name;
            policy.profile = profile_;
            policy.slice = grant.slice;
            // 0 is the device's.
            policy.file = static_cast<uint16_t>(1 + (&source - files_.data()));
            policy.forward = file.forward;
            policy.sandbox_cgroup_id = sandbox.cgroup_id;
            policy.cgroup_level = sandbox.cgroup_level;
            policy.exclusive = false;
            // Anonymous files cannot be opened anew, and many share an inode.
            policy.only_way = kind != Kind::Anonymous;
            for (const IoctlRule& rule : file.ioctls) policy.ioctls.push_back(for_guard(rule, grant.slice));
            for (const Window& window : file.windows)
                policy.windows.push_back(guard_window(window, grant.slice));
            POSTERN_TRY(guard_file(guard, fd.get(), std::move(policy)));
            grant.fds.push_back({"file." + file.name, std::move(fd)});
            return {};
        };
        if (auto added = add(); !added) return propagate(std::move(added), context(file, profile_));
        add_file(grant.manifest, file, grant.slice);
    }
    return {};
}

}  // namespace postern
