// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/hook_report.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/json_reader.h"
#include "broker-core/runtime_dir.h"

namespace postern {
namespace {

/// Then it begins anew: nobody else looks after it.
constexpr off_t kMostOfLog = 1 << 20;
constexpr size_t kMostOfCommandLine = 1 << 16;

std::string now_text(const char* format) {
    const std::time_t now = std::time(nullptr);
    tm parts{};
    std::array<char, 40> text{};
    (void)::gmtime_r(&now, &parts);
    (void)std::strftime(text.data(), text.size(), format, &parts);
    return text.data();
}

/// In one write(2), so that lines of several do not mix. Never waits: a full pipe of the runtime's must not
/// hold it up.
void append(const std::string& path, std::string_view text, int more_flags = 0) {
    const UniqueFd file(
        ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | more_flags, 0600));
    if (file) (void)!::write(file.get(), text.data(), text.size());
}

bool is_null_device(int fd) {
    struct stat ours {};
    struct stat null {};
    return ::fstat(fd, &ours) != 0 ||
           (::stat("/dev/null", &null) == 0 && S_ISCHR(ours.st_mode) && ours.st_rdev == null.st_rdev);
}

/// crun keeps a hook's stderr from everybody. podman shows what conmon has read of the runtime's stderr if
/// the runtime's log is not one JSON object, as it is where crun writes its own line behind ours.
void tell_past_runtime(const std::string& line) {
    const pid_t parent = ::getppid();
    if (parent <= 1) return;
    append(fmt::format("/proc/{}/fd/2", parent), line + "\n");
    const auto command_line = read_file(fmt::format("/proc/{}/cmdline", parent), kMostOfCommandLine);
    const RuntimeLog log = runtime_log(command_line ? *command_line : std::string());
    if (log.file.empty() || !log.file.starts_with('/')) return;
    const Json entry{{"msg", line}, {"level", "error"}, {"time", now_text("%Y-%m-%dT%H:%M:%SZ")}};
    append(log.file, (log.json ? entry.dump(-1, ' ', false, Json::error_handler_t::replace) : line) + "\n");
}

}  // namespace

HookStatus status_of(std::optional<BrokerRefusal> refusal) {
    if (!refusal) return HookStatus::NoGrant;
    switch (*refusal) {
        case BrokerRefusal::Busy:
            return HookStatus::Busy;
        case BrokerRefusal::Denied:
            return HookStatus::Denied;
        case BrokerRefusal::NotFound:
            return HookStatus::NoSuchSlice;
        case BrokerRefusal::BadRequest:
        case BrokerRefusal::Failed:
            break;
    }
    return HookStatus::NoGrant;
}

RuntimeLog runtime_log(std::string_view command_line) {
    std::vector<std::string_view> words;
    while (!command_line.empty()) {
        const size_t end = command_line.find('\0');
        words.push_back(command_line.substr(0, end));
        command_line.remove_prefix(end == std::string_view::npos ? command_line.size() : end + 1);
    }
    const auto value_of = [&](std::string_view option) -> std::string_view {
        for (size_t i = 1; i < words.size(); ++i) {
            std::string_view word = words[i];
            if (word == option) return i + 1 < words.size() ? words[i + 1] : std::string_view();
            if (word.starts_with(option) && word[option.size()] == '=') return word.substr(option.size() + 1);
        }
        return {};
    };
    std::string file(value_of("--log"));
    // crun's own syntax.
    if (file.starts_with("file:")) file.erase(0, 5);
    return {std::move(file), value_of("--log-format") == "json"};
}

void log_hook(const std::string& line) {
    if (const auto made = make_runtime_dir(); made) {
        const std::string path = fmt::format("{}/hook.log", kRuntimeDir);
        struct stat found {};
        const bool full = ::stat(path.c_str(), &found) == 0 && found.st_size > kMostOfLog;
        append(path, fmt::format("{} {}\n", now_text("%Y-%m-%dT%H:%M:%SZ"), line),
               O_CREAT | O_NOFOLLOW | (full ? O_TRUNC : 0));
    }
    ::openlog("postern-oci-hook", LOG_PID, LOG_DAEMON);
    ::syslog(LOG_ERR, "%s", line.c_str());
    ::closelog();
}

int report_hook_error(const HookError& error) {
    const std::string line = one_line(error.error.message);
    const std::string said = "postern-oci-hook: " + line;
    (void)!::write(STDERR_FILENO, (said + "\n").c_str(), said.size() + 1);
    log_hook(line);
    if (is_null_device(STDERR_FILENO)) tell_past_runtime(said);
    return static_cast<int>(error.status);
}

}  // namespace postern
