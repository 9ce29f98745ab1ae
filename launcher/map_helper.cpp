// SPDX-License-Identifier: Apache-2.0
#include "launcher/map_helper.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "broker-core/file.h"
#include "broker-core/unique_fd.h"

namespace postern {
namespace {

/// The second is NixOS's.
constexpr std::array<const char*, 2> kFolders = {"/usr/bin/", "/run/wrappers/bin/"};
constexpr std::size_t kMaxSaid = 4096;

const char* name_of(MapHelper helper) {
    return helper == MapHelper::Uids ? "newuidmap" : "newgidmap";
}

/// Its standard error is `said`; its standard input and output are nothing.
Result<pid_t> spawn(const std::string& program, std::vector<std::string>& words, int said) {
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    char* no_environment[] = {nullptr};
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDWR, 0);
    ::posix_spawn_file_actions_adddup2(&files, STDIN_FILENO, STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&files, said, STDERR_FILENO);
    pid_t pid = -1;
    const int errnum = ::posix_spawn(&pid, program.c_str(), &files, nullptr, argv.data(), no_environment);
    ::posix_spawn_file_actions_destroy(&files);
    if (errnum != 0) return fail_errno(errnum, "user namespace: starting {}", program);
    return pid;
}

}  // namespace

Result<std::string> find_map_helper(MapHelper helper) {
    for (const char* folder : kFolders) {
        std::string path = std::string(folder) + name_of(helper);
        if (::access(path.c_str(), X_OK) == 0) return path;
    }
    return fail(
        "user namespace: for an ordinary user more ids than his own are mapped by {}(1), which is not in {}; "
        "install it "
        "(Debian's package uidmap)",
        name_of(helper), kFolders.front());
}

Status run_map_helper(MapHelper helper, pid_t pid, const IdMap& map) {
    POSTERN_ASSIGN(const std::string program, find_map_helper(helper));
    std::vector<std::string> words = {name_of(helper), std::to_string(pid)};
    for (const IdRange& range : map) {
        for (const std::uint32_t number : {range.inside, range.outside, range.count})
            words.push_back(std::to_string(number));
    }
    std::array<int, 2> ends = {-1, -1};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "pipe2");
    }
    const UniqueFd said(ends[0]);
    UniqueFd its_end(ends[1]);
    POSTERN_ASSIGN(const pid_t child, spawn(program, words, its_end.get()));
    its_end.reset();
    auto text = read_to_end(said.get(), kMaxSaid);
    siginfo_t info = {};
    while (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED) != 0) {
        const int errnum = errno;
        if (errnum != EINTR) return fail_errno(errnum, "user namespace: waiting for {}", program);
    }
    if (info.si_code == CLD_EXITED && info.si_status == 0) return {};
    std::string why = text ? *text : "";
    why = why.substr(0, why.find('\n'));
    if (why.empty()) why = fmt::format("ended with {}", info.si_status);
    return fail("user namespace: {}: {}; /etc/{} must grant these ids to the caller", program, why,
                helper == MapHelper::Uids ? "subuid" : "subgid");
}

}  // namespace postern
