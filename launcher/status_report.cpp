// SPDX-License-Identifier: Apache-2.0
#include "launcher/status_report.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "launcher/json_string.h"
#include "launcher/report.h"

namespace postern {
namespace {

/// Members in their order, values in JSON already. Written with bubblewrap's blanks, which scripts that read
/// it by grep count on.
using Members = std::vector<std::pair<std::string, std::string>>;

std::string write_object(const Members& members, const char* begin, const char* between, const char* end) {
    std::string text = begin;
    for (const auto& [name, value] : members) {
        if (&name != &members.front().first) text += between;
        text += fmt::format("\"{}\": {}", name, value);
    }
    return text + end;
}

std::string on_one_line(const Members& members) {
    return write_object(members, "{ ", ", ", " }\n");
}

/// pid of the sandbox's first process and numbers of the namespaces, as bubblewrap has them.
Members whereabouts(pid_t init, const Namespaces& own,
                    const std::array<std::uint64_t, kNamespaceNames.size()>& numbers) {
    const std::array<bool, kNamespaceNames.size()> is_own = {own.cgroup, own.ipc, own.mount, own.net,
                                                             own.pid,    own.uts, own.user};
    Members members = {{"child-pid", std::to_string(init)}};
    for (std::size_t i = 0; i < kNamespaceNames.size(); ++i) {
        if (is_own[i] && numbers[i] != 0)
            members.emplace_back(fmt::format("{}-namespace", kNamespaceNames[i]), std::to_string(numbers[i]));
    }
    return members;
}

std::string in_lines(const Members& members) {
    return write_object(members, "{\n    ", ",\n    ", "\n}\n");
}

}  // namespace

Status StatusReport::take(Target& target, std::optional<int> fd) {
    if (!fd) return {};
    const int flags = *fd < 0 ? -1 : ::fcntl(*fd, F_GETFL);
    if (flags < 0) {
        return fail("{} {}: is not open; give the number of an open file, e.g. {} 5 5>status.json",
                    target.option, *fd, target.option);
    }
    if ((flags & O_PATH) != 0 || (flags & O_ACCMODE) == O_RDONLY) {
        return fail("{} {}: is not open for writing; give e.g. {} 5 5>status.json", target.option, *fd,
                    target.option);
    }
    target.number = *fd;
    if (*fd <= 2) return {};
    target.owned.reset(*fd);
    if (::fcntl(*fd, F_SETFD, FD_CLOEXEC) == 0) return {};
    const int errnum = errno;
    return fail_errno(errnum, "{} {}", target.option, *fd);
}

Result<StatusReport> StatusReport::open(std::optional<int> info, std::optional<int> status) {
    if (info && info == status) {
        return fail(
            "--info-fd and --json-status-fd are both {}; give each a file of its own, or the latter "
            "alone, which tells more",
            *info);
    }
    StatusReport report;
    POSTERN_TRY(take(report.info_, info));
    POSTERN_TRY(take(report.status_, status));
    return report;
}

void StatusReport::close(Target& target) {
    target.number = -1;
    target.owned.reset();
}

void StatusReport::tell(Target& target, const std::string& text) {
    if (target.number < 0) return;
    const int errnum = write_out(target.number, text);
    if (errnum == 0) return;
    postern::tell("postern: {} {}: {}; the client runs on, and no more is told there\n", target.option,
                  target.number, errno_text(errnum));
    close(target);
}

void StatusReport::tell_early(pid_t init, const Namespaces& own) {
    std::array<std::uint64_t, kNamespaceNames.size()> numbers = {};
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        struct stat status = {};
        const std::string_view link(kNamespaceLinks[i]);  // "self/ns/…"
        const std::string path = fmt::format("/proc/{}/{}", init, link.substr(link.find('/') + 1));
        if (::stat(path.c_str(), &status) == 0) numbers[i] = status.st_ino;
    }
    tell(info_, in_lines(whereabouts(init, own, numbers)));
    close(info_);
}

void StatusReport::started(const Started& what) {
    const ClientIdentity& client = what.client->identity();
    const pid_t child = what.child_is_client && client.pid != 0 ? client.pid : what.client->init_pid();
    const Members common = whereabouts(child, what.namespaces, client.namespaces);
    tell(info_, in_lines(common));
    // Its readers wait for the end of the file.
    close(info_);
    Members more = common;
    if (client.pid != 0) more.emplace_back("pid", std::to_string(client.pid));
    more.emplace_back("pidfd", std::to_string(what.client->pidfd()));
    if (!what.cgroup.empty()) more.emplace_back("cgroup", json_string(what.cgroup));
    if (!what.grant.empty()) more.emplace_back("grant", json_string(what.grant));
    tell(status_, on_one_line(more));
}

void StatusReport::ended(int exit_code, const ExitReason& reason) {
    Members members = {{"exit-code", std::to_string(exit_code)},
                       {"exit-reason", fmt::format("\"{}\"", exit_reason_name(reason.kind))}};
    if (reason.signal != 0) {
        members.emplace_back("signal", std::to_string(reason.signal));
        members.emplace_back("signal-name", json_string(signal_name(reason.signal)));
    }
    if (reason.call) {
        members.emplace_back("syscall", std::to_string(reason.call->number));
        if (!reason.call->name.empty()) members.emplace_back("syscall-name", json_string(reason.call->name));
        members.emplace_back("syscall-abi", json_string(reason.call->abi));
    }
    if (const std::string_view limit = hit_time_limit(reason); !limit.empty())
        members.emplace_back("limit", fmt::format("\"{}\"", limit));
    tell(status_, on_one_line(members));
    close(status_);
}

}  // namespace postern
