// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_key.h"

#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "broker-core/file.h"
#include "broker-core/profile_path.h"
#include "launcher/byte_archive.h"
#include "launcher/launch_file.h"

namespace postern {
namespace {

struct KnownOption {
    std::string_view name;
    std::size_t words;
};

/// Why a list of its own: an option that is added to `postern run` must not be taken for one that is part of
/// a kept launch before somebody has thought about it.
constexpr KnownOption kKnownOptions[] = {
    {"--ro-bind", 2},
    {"--bind", 2},
    {"--dev-bind", 2},
    {"--tmpfs", 1},
    {"--proc", 1},
    {"--dev", 1},
    {"--setenv", 2},
    {"--unsetenv", 1},
    {"--keepenv", 1},
    {"--chdir", 1},
    {"--hostname", 1},
    {"--uid", 1},
    {"--gid", 1},
    {"--cap-add", 1},
    {"--root", 1},
    {"--rlimit", 1},
    {"--time-limit", 1},
    {"--cpu-limit", 1},
    {"--landlock-read", 1},
    {"--landlock-write", 1},
    {"--landlock-execute", 1},
    {"--landlock-ioctl", 1},
    {"--landlock-bind-tcp", 1},
    {"--landlock-connect-tcp", 1},
    {"--landlock-require", 0},
    {"--subids", 0},
    {"--seccomp-profile", 1},
    {"--share-net", 0},
    {"--share-pid", 0},
    {"--share-ipc", 0},
    {"--share-uts", 0},
    {"--share-cgroup", 0},
    {"--clearenv", 0},
    {"--quiet", 0},
    {"--profile", 1},
    {"--ro-bind-try", 2},
    {"--bind-try", 2},
    {"--dev-bind-try", 2},
    {"--mqueue", 1},
    {"--dir", 1},
    {"--symlink", 2},
    {"--chmod", 2},
    {"--remount-ro", 1},
    {"--netns", 1},
    {"--loopback", 0},
    {"--as-pid-1", 0},
    {"--disable-userns", 0},
    {"--new-session", 0},
    {"--share-session", 0},
    {"--monotonic", 1},
    {"--perms", 1},
    {"--size", 1},
    {"--overlay-src", 1},
    {"--overlay", 3},
    {"--tmp-overlay", 1},
    {"--ro-overlay", 1},
    {"--cap-drop", 1},
    {"--unshare-all", 0},
    {"--unshare-user", 0},
    {"--unshare-pid", 0},
    {"--unshare-net", 0},
    {"--unshare-ipc", 0},
    {"--unshare-uts", 0},
    {"--unshare-cgroup", 0},
    {"--die-with-parent", 0},
    {"--boottime", 1},
};

/// The programs that compile launches and that run them, at their places.
constexpr const char* kPrograms[] = {"/bin/postern", "/libexec/postern/postern-full"};

bool add_folder(ByteWriter& key) {
    char* folder = ::get_current_dir_name();
    if (folder == nullptr) return false;
    key.one(std::string(folder));
    std::free(folder);
    return true;
}

bool add_profile(ByteWriter& key, const std::string& name) {
    const auto file = find_profile_file(name);
    if (!file) return false;
    key.one(*file);
    return true;
}

}  // namespace

std::optional<std::string> build_identity() {
    ByteWriter identity;
    // Where the default filter and profiles lie.
    const std::string& prefix = program_prefix();
    identity.one(std::string(POSTERN_VERSION));
    identity.one(prefix);
    bool is_one = false;
    for (const char* each : kPrograms) {
        const std::string path = prefix + each;
        // A program that was replaced while it runs has another name in /proc.
        is_one = is_one || path == program_file();
        struct stat program = {};
        if (::stat(path.c_str(), &program) != 0) return std::nullopt;
        identity.one(program.st_dev);
        identity.one(program.st_ino);
        identity.one(program.st_size);
        identity.one(program.st_mtim.tv_sec);
        identity.one(program.st_mtim.tv_nsec);
    }
    utsname kernel = {};
    if (!is_one || ::uname(&kernel) != 0) return std::nullopt;
    // What conditions in a seccomp profile are evaluated against.
    identity.one(std::string(kernel.release));
    return identity.take();
}

std::optional<LaunchFileRun> launch_file_run(const std::vector<std::string>& words) {
    if (words.empty() || words.front() != "run") return std::nullopt;
    LaunchFileRun run;
    for (auto word = words.begin() + 1; word != words.end(); ++word) {
        if (*word == "--quiet") {
            run.quiet = true;
        } else if (*word == "--profile" && word + 1 != words.end() && is_launch_file(word[1])) {
            run.file = *++word;
        } else if (*word == "--" || !word->starts_with('-')) {
            run.command.assign(*word == "--" ? word + 1 : word, words.end());
            break;
        } else {
            return std::nullopt;
        }
    }
    if (run.file.empty() || run.command.empty()) return std::nullopt;
    return run;
}

std::optional<LaunchKey> launch_key(const std::vector<std::string>& words, const std::string& build) {
    if (words.empty() || words.front() != "run") return std::nullopt;
    LaunchKey launch;
    ByteWriter key;
    key.one(build);
    const auto dashes = std::find(words.begin(), words.end(), "--");
    bool relative = false;
    if (dashes == words.end()) {
        // Without "--", options and the command cannot be told apart but by the whole parser.
        if (words.size() < 2 || words[1].starts_with('-')) return std::nullopt;
        launch.command.assign(words.begin() + 1, words.end());
    } else {
        for (auto word = words.begin() + 1; word != dashes;) {
            const auto known = std::find_if(std::begin(kKnownOptions), std::end(kKnownOptions),
                                            [&](const KnownOption& each) { return each.name == *word; });
            if (known == std::end(kKnownOptions)) return std::nullopt;
            if (static_cast<std::size_t>(dashes - word) <= known->words) return std::nullopt;
            if (known->name == "--profile" && !add_profile(key, word[1])) return std::nullopt;
            key.one(*word++);
            for (std::size_t i = 0; i < known->words; ++i) {
                if (word->starts_with('-')) return std::nullopt;
                if (!word->starts_with('/')) relative = true;
                key.one(*word++);
            }
        }
        launch.command.assign(dashes + 1, words.end());
    }
    if (launch.command.empty() || launch.command.front().empty()) return std::nullopt;
    if (relative && !add_folder(key)) return std::nullopt;
    launch.text = key.take();
    return launch;
}

}  // namespace postern
