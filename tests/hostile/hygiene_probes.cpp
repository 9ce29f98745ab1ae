// SPDX-License-Identifier: Apache-2.0
// What the client was born with. Nothing is attempted here: what should not be there is looked for, and
// counts as allowed when it is found.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

extern char** environ;

namespace postern::hostile {
namespace {

constexpr int kMostFds = 65536;
/// No call says no here: there is no errno to show.
constexpr int kAbsent = 0;

bool is_granted(const Target& target, int fd) {
    return std::any_of(target.fds.begin(), target.fds.end(),
                       [fd](const NamedFd& named) { return named.fd == fd; });
}

/// What an fd leads to, for the reader.
std::string destination(int fd) {
    char path[256] = "";
    const ssize_t size = readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), path, sizeof path - 1);
    return size < 0 ? "?" : std::string(path, static_cast<size_t>(size));
}

Attempt find_stray_fds(const Target& target) {
    for (int fd = 3; fd < kMostFds; ++fd) {
        if (fcntl(fd, F_GETFD) < 0 || is_granted(target, fd)) continue;
        return succeeded(fmt::format("fd {}: {}", fd, destination(fd)));
    }
    return failed(kAbsent, "none");
}

/// A directory among the standard fds is a way around the root; a file for writing may be one.
Attempt find_standard_directories(const Target&) {
    for (int fd = 0; fd < 3; ++fd) {
        struct stat status {};
        if (fstat(fd, &status) == 0 && (S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode))) {
            return succeeded(fmt::format("fd {}: {}", fd, destination(fd)));
        }
    }
    return failed(kAbsent, "none");
}

bool is_same(int one, int other) {
    struct statx first {};
    struct statx second {};
    constexpr unsigned wanted = STATX_INO | STATX_MNT_ID;
    return statx(one, "", AT_EMPTY_PATH, wanted, &first) == 0 &&
           statx(other, "", AT_EMPTY_PATH, wanted, &second) == 0 && first.stx_ino == second.stx_ino &&
           first.stx_dev_major == second.stx_dev_major && first.stx_dev_minor == second.stx_dev_minor &&
           first.stx_mnt_id == second.stx_mnt_id;
}

/// ".." from whatever folder is at hand ends at this root, unless the folder is of another one.
Attempt climb(const Target&) {
    const UniqueFd root(open("/", O_PATH | O_CLOEXEC));
    if (!root) return preparation_failed("open of /");
    const UniqueFd own(open(".", O_PATH | O_CLOEXEC));
    for (int fd = 0; fd < kMostFds; ++fd) {
        struct stat status {};
        if (fstat(fd, &status) != 0 || !S_ISDIR(status.st_mode)) continue;
        UniqueFd at(fcntl(fd, F_DUPFD_CLOEXEC, 3));
        for (int i = 0; i < 64 && at; ++i) {
            UniqueFd above(openat(at.get(), "..", O_PATH | O_CLOEXEC));
            if (above) at = std::move(above);
        }
        if (at && !is_same(at.get(), root.get()))
            return succeeded(fmt::format("fd {}: {}", fd, destination(fd)));
    }
    return failed(kAbsent, "all of them lead to /");
}

Attempt find_environment(const Target&) {
    // The sandbox's own, the grant's, and what a profile keeps for a terminal or a test.
    constexpr const char* kExpected[] = {
        "PATH=", "TERM=", "HOME=",   "USER=",  "LOGNAME=", "SHELL=",   "PWD=",    "LANG=",
        "LC_",   "TZ=",   "LISTEN_", "SHLVL=", "_=",       "POSTERN_", "TMPDIR=", "container="};
    for (char** variable = environ; *variable != nullptr; ++variable) {
        const std::string_view text = *variable;
        if (std::none_of(std::begin(kExpected), std::end(kExpected),
                         [&](const char* name) { return text.starts_with(name); })) {
            return succeeded(std::string(text.substr(0, text.find('='))));
        }
    }
    return failed(kAbsent, "none");
}

Attempt find_new_privileges(const Target&) {
    const int set = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    return set == 1 ? failed(kAbsent, "no_new_privs is set") : succeeded("no_new_privs is not set");
}

Attempt find_no_filter(const Target&) {
    for (const std::string& line : lines_of("/proc/self/status")) {
        const std::vector<std::string> words = words_of(line);
        if (words.size() != 2 || words[0] != "Seccomp:") continue;
        return number_of(words[1]) == uint64_t{SECCOMP_MODE_FILTER} ? failed(kAbsent, "a filter is set")
                                                                    : succeeded("no filter is set");
    }
    return impossible("/proc/self/status has no Seccomp line");
}

Attempt find_capabilities(const Target&) {
    unsigned sets = 0;
    for (const std::string& line : lines_of("/proc/self/status")) {
        const std::vector<std::string> words = words_of(line);
        if (words.size() != 2 || !words[0].starts_with("Cap")) continue;
        if (number_of(words[1], 16) != uint64_t{0}) return succeeded(line);
        ++sets;
    }
    if (sets == 0) return impossible("/proc/self/status has no capabilities");
    return failed(kAbsent, "every set is empty");
}

Attempt find_groups(const Target&) {
    gid_t groups[256];
    const int count = getgroups(256, groups);
    if (count < 0) return judged(-1, "getgroups");
    // Group 65534 is what an id that the user namespace does not map looks like: it gives rights all the
    // same.
    for (int i = 0; i < count; ++i) {
        if (groups[i] != getgid()) return succeeded(fmt::format("group {}", groups[i]));
    }
    return failed(kAbsent, "none");
}

Attempt is_root(const Target&) {
    return getuid() == 0 || geteuid() == 0 ? succeeded(fmt::format("user {}", geteuid()))
                                           : failed(kAbsent, fmt::format("user {}", geteuid()));
}

/// In a user namespace root may be harmless: the map tells whom it is outside.
Attempt is_root_outside(const Target&) {
    const std::vector<std::string> lines = lines_of("/proc/self/uid_map");
    if (lines.empty()) return impossible("no /proc/self/uid_map");
    const uint64_t own = geteuid();
    for (const std::string& line : lines) {
        const std::vector<std::string> words = words_of(line);
        if (words.size() != 3) continue;
        const uint64_t inside = number_of(words[0]).value_or(0);
        const uint64_t outside = number_of(words[1]).value_or(0);
        const uint64_t count = number_of(words[2]).value_or(0);
        if (own >= inside && own - inside < count && outside + (own - inside) == 0) return succeeded(line);
    }
    return failed(kAbsent, "no");
}

Attempt see_processes(const Target& target) {
    for (const std::string& path : entries_of("/proc")) {
        const std::string name = path.substr(sizeof "/proc/" - 1);
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        const pid_t process = std::stoi(name);
        // Process 1 is the sandbox's own init; the probes of group "processes" try what can be done to it.
        if (process != 1 && process != target.self && process != getpid()) return succeeded(path);
    }
    return failed(kAbsent, "none");
}

}  // namespace

void add_hygiene_probes(Probes& probes) {
    const struct {
        const char* name;
        const char* what;
        Attempt (*attempt)(const Target&);
    } ways[] = {
        {"stray-fds", "an open fd that is not of the grant", find_stray_fds},
        {"directory-fds", "a directory or disk as standard fd", find_standard_directories},
        {"old-root", "a way up past / from the working or an open folder", climb},
        {"environment", "a variable that came from outside", find_environment},
        {"new-privileges", "set-uid programs that give rights", find_new_privileges},
        {"no-seccomp", "life without a seccomp filter", find_no_filter},
        {"capabilities", "a capability in any set", find_capabilities},
        {"groups", "a supplementary group", find_groups},
        {"root-inside", "being user 0", is_root},
        {"root-outside", "being user 0 of the parent user namespace", is_root_outside},
        {"other-processes", "sight of other processes", see_processes},
    };
    for (const auto& way : ways) {
        probes.push_back({.name = way.name,
                          .group = "hygiene",
                          .what = way.what,
                          .attempt = way.attempt,
                          .refusals = {kAbsent},
                          .inherent = {kAbsent},
                          .inherent_why = "as it was started"});
    }
}

}  // namespace postern::hostile
