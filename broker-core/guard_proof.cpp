// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_proof.h"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "broker-core/file.h"

namespace postern {
namespace {

constexpr uint64_t kPage = POSTERN_PAGE_SIZE;
/// VFIO's type letter with a number that it does not use.
constexpr unsigned long kBogusIoctl = _IO(VFIO_TYPE, 255);
/// No window lies here, no region of a device does, and it is a valid loff_t.
constexpr off_t kNowhere = 0x7fffLL << 40;

/// A mapping that ends with its scope.
class Mapping {
  public:
    Mapping(int fd, uint64_t length, int prot, uint64_t offset)
        : address_(::mmap(nullptr, length, prot, MAP_SHARED, fd, static_cast<off_t>(offset))),
          error_(address_ == MAP_FAILED ? errno : 0),
          length_(length) {}
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (error_ == 0) ::munmap(address_, length_);
    }

    /// 0, or errno of the mmap.
    [[nodiscard]] int error() const { return error_; }
    [[nodiscard]] void* address() const { return address_; }

  private:
    void* address_;
    int error_;
    uint64_t length_;
};

Status expect_refused(int error, const char* what) {
    if (error == EPERM) return {};
    return fail("the guard cannot be proved: {} on the guarded file {}; expected: {}; nothing is started",
                what, error == 0 ? "was allowed" : "gave \"" + errno_text(error) + "\"", errno_text(EPERM));
}

/// No string is made unless it fails: a proof may run in a child of a process with threads.
Status expect_allowed(int error, const char* what) {
    if (error == 0) return {};
    return fail_errno(
        error, "the guard cannot be proved: {}, which the policy allows, fails on the guarded file", what);
}

int call_bogus_ioctl(int fd) {
    return ::ioctl(fd, kBogusIoctl, 0) == 0 ? 0 : errno;
}

Status prove_window(int guarded_fd, const GuardWindow& window) {
    const uint64_t start = window.offset & ~(kPage - 1);
    const uint64_t length = ((window.offset + window.length + kPage - 1) & ~(kPage - 1)) - start;
    const Mapping allowed(guarded_fd, length, window.read ? PROT_READ : PROT_WRITE, start);
    if (allowed.error() != 0)
        return expect_allowed(allowed.error(),
                              fmt::format("mmap of the window at {:#x}", window.offset).c_str());
    // Kernels without Linux commit ea7e2d5e49c0 change a mapping's place in the file without asking anyone.
    const long moved = ::syscall(SYS_remap_file_pages, allowed.address(), kPage, 0,
                                 static_cast<size_t>(kNowhere) / kPage, 0);
    const int error = moved == 0 ? 0 : errno;
    // A mapping of a file that is only open for reading is none that this call knows (mm/mmap.c, VM_SHARED).
    const int mode = ::fcntl(guarded_fd, F_GETFL) & O_ACCMODE;
    if (mode == O_RDONLY && error == EINVAL) return {};
    return expect_refused(error, "remap_file_pages of an allowed mapping");
}

}  // namespace

Result<uint64_t> measure_vma_offset(int fd, uint64_t offset) {
    const uint64_t start = offset & ~(kPage - 1);
    const Mapping readable(fd, kPage, PROT_READ, start);
    // A file that is only open for writing.
    const Mapping closed(readable.error() == 0 ? -1 : fd, kPage, PROT_NONE, start);
    if (readable.error() != 0 && closed.error() != 0) {
        return fail_errno(readable.error(), "cannot map the page at {:#x} of the file", start);
    }
    const auto address =
        reinterpret_cast<uint64_t>(readable.error() == 0 ? readable.address() : closed.address());

    POSTERN_ASSIGN(const std::string maps, read_file("/proc/self/maps", 64 << 20));
    for (size_t at = 0; at < maps.size();) {
        const size_t end = std::min(maps.find('\n', at), maps.size());
        const std::string line = maps.substr(at, end - at);
        at = end + 1;
        unsigned long long first = 0;
        unsigned long long last = 0;
        unsigned long long found = 0;
        if (std::sscanf(line.c_str(), "%llx-%llx %*s %llx", &first, &last, &found) != 3) continue;
        // Mappings that touch may have been merged into one line.
        if (address >= first && address < last) return found + (address - first);
    }
    return fail(
        "the mapping of the page at {:#x} of the file is not in /proc/self/maps; is /proc that of this "
        "process's pid namespace?",
        start);
}

Status prove_unguarded(int fd) {
    const int error = call_bogus_ioctl(fd);
    if (error != EPERM) return {};
    return fail(
        "the guard cannot be proved: an unknown ioctl is refused ({}) before it is in force; is the file "
        "guarded "
        "by another grant, or does another security module refuse it?",
        errno_text(error));
}

Status prove_closed(int guarded_fd, const FilePolicy& policy) {
    POSTERN_TRY(expect_refused(call_bogus_ioctl(guarded_fd), "an unknown ioctl"));
    POSTERN_TRY(expect_refused(Mapping(guarded_fd, kPage, PROT_READ, static_cast<uint64_t>(kNowhere)).error(),
                               "a mapping far outside"));
    char byte = 0;
    const ssize_t got = ::pread(guarded_fd, &byte, 1, kNowhere);
    const int error = got >= 0 ? 0 : errno;
    // Files that nobody can read, such as a VM's or a dma-buf's, answer before the guard is asked.
    if ((policy.exclusive && !policy.unreadable) || (error != EINVAL && error != ESPIPE && error != EBADF))
        POSTERN_TRY(expect_refused(error, "a read far outside"));
    return {};
}

Status prove_guard(int guarded_fd, const FilePolicy& policy) {
    POSTERN_TRY(prove_closed(guarded_fd, policy));
    const auto mapped = std::find_if(policy.windows.begin(), policy.windows.end(),
                                     [](const GuardWindow& window) { return window.mmap; });
    if (mapped != policy.windows.end()) return prove_window(guarded_fd, *mapped);
    const auto is_info = [](const GuardIoctl& ioctl) {
        return ioctl.number == static_cast<uint32_t>(VFIO_DEVICE_GET_INFO);
    };
    if (policy.exclusive && std::any_of(policy.ioctls.begin(), policy.ioctls.end(), is_info)) {
        vfio_device_info info{};
        info.argsz = sizeof info;
        const int failed = ::ioctl(guarded_fd, VFIO_DEVICE_GET_INFO, &info) == 0 ? 0 : errno;
        return expect_allowed(failed, "VFIO_DEVICE_GET_INFO");
    }
    return {};
}

}  // namespace postern
