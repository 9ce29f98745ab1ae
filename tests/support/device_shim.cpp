// SPDX-License-Identifier: Apache-2.0
// LD_PRELOADed into fuzzers (stress-ng, trinity) that know files by path only: whatever they open by a path
// that begins with $DEVICE_AT is a duplicate of the fd that LISTEN_FDNAMES calls "device". All else is opened
// as ever.
//
// Both look at what they have opened, and do little to a file that is of no type, as VFIO's are. So fstat(2)
// calls such a file a character device, one of "vfio" in /proc/devices: then trinity knows which ioctls to
// try.
//
// The functions have glibc's names, the fortified ones included.

#undef _FORTIFY_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

int device_fd() {
    const char* names = std::getenv("LISTEN_FDNAMES");
    if (names == nullptr) return -1;
    int fd = 3;
    for (std::string_view rest = names;; ++fd) {
        const auto end = rest.find(':');
        if (rest.substr(0, end) == "device") return fd;
        if (end == std::string_view::npos) return -1;
        rest.remove_prefix(end + 1);
    }
}

bool is_device(const char* path) {
    const char* place = std::getenv("DEVICE_AT");
    return place != nullptr && path != nullptr && std::string_view(path).starts_with(place);
}

int open_any(int folder, const char* path, int flags, unsigned mode) {
    // A folder stays one: fuzzers make some to put their files in.
    if (is_device(path) && (flags & O_DIRECTORY) == 0) return ::dup(device_fd());
    return static_cast<int>(::syscall(SYS_openat, folder, path, flags, mode));
}

unsigned mode_of(int flags, va_list list) {
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, unsigned) : 0U;
}

unsigned vfio_major() {
    static const unsigned found = [] {
        unsigned number = 0;
        char name[64];
        char text[4096] = {};
        const int file = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, "/proc/devices", O_RDONLY, 0));
        if (file < 0) return 0U;
        (void)!::read(file, text, sizeof text - 1);
        ::close(file);
        for (const char* line = text; line != nullptr && *line != '\0';) {
            if (std::sscanf(line, "%u %63s", &number, name) == 2 && std::strcmp(name, "vfio") == 0)
                return number;
            line = std::strchr(line, '\n');
            if (line != nullptr) ++line;
        }
        return 0U;
    }();
    return found;
}

int stat_any(int fd, struct stat* status) {
    const auto result = static_cast<int>(::syscall(SYS_fstat, fd, status));
    if (result == 0 && (status->st_mode & S_IFMT) == 0) {
        status->st_mode |= S_IFCHR;
        status->st_rdev = ::makedev(vfio_major(), 0);
    }
    return result;
}

}  // namespace

#define SHIM extern "C" __attribute__((visibility("default")))

#define SHIM_OPEN(name)                               \
    SHIM int name(const char* path, int flags, ...) { \
        va_list list;                                 \
        va_start(list, flags);                        \
        const unsigned mode = mode_of(flags, list);   \
        va_end(list);                                 \
        return open_any(AT_FDCWD, path, flags, mode); \
    }
#define SHIM_OPENAT(name)                                         \
    SHIM int name(int folder, const char* path, int flags, ...) { \
        va_list list;                                             \
        va_start(list, flags);                                    \
        const unsigned mode = mode_of(flags, list);               \
        va_end(list);                                             \
        return open_any(folder, path, flags, mode);               \
    }

SHIM_OPEN(open)
SHIM_OPEN(open64)
SHIM_OPENAT(openat)
SHIM_OPENAT(openat64)

SHIM int creat(const char* path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
SHIM int creat64(const char* path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
SHIM int __open_2(const char* path, int flags) {
    return open_any(AT_FDCWD, path, flags, 0);
}
SHIM int __open64_2(const char* path, int flags) {
    return open_any(AT_FDCWD, path, flags, 0);
}
SHIM int __openat_2(int folder, const char* path, int flags) {
    return open_any(folder, path, flags, 0);
}
SHIM int __openat64_2(int folder, const char* path, int flags) {
    return open_any(folder, path, flags, 0);
}
SHIM int fstat(int fd, struct stat* status) noexcept {
    return stat_any(fd, status);
}
SHIM int fstat64(int fd, struct stat64* status) noexcept {
    return stat_any(fd, reinterpret_cast<struct stat*>(status));
}
