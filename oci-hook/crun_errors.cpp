// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/crun_errors.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <string_view>

#include "broker-core/broker_message.h"
#include "broker-core/json_reader.h"
#include "broker-core/unique_fd.h"

namespace postern {
namespace {

constexpr int kFailed = 1;

std::string utc_now() {
    timespec now{};
    (void)::clock_gettime(CLOCK_REALTIME, &now);
    tm parts{};
    (void)::gmtime_r(&now.tv_sec, &parts);
    std::array<char, 40> text{};
    (void)std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
    return fmt::format("{}.{:06}Z", text.data(), now.tv_nsec / 1000);
}

}  // namespace

int report_crun_error(const Error& error, const CrunCommandLine& line) {
    const std::string said = "postern: " + one_line(error.message);
    const std::string on_stderr = said + "\n";
    (void)!::write(STDERR_FILENO, on_stderr.data(), on_stderr.size());
    std::string file = line.log;
    if (file.starts_with("file:")) file.erase(0, 5);
    // crun's other sorts of log (journald:, syslog:) have what is on stderr from whoever started it.
    const bool is_file = !file.empty() && !file.starts_with("journald:") && !file.starts_with("syslog:");
    if (!is_file) return kFailed;
    const Json entry{{"msg", said}, {"level", "error"}, {"time", utc_now()}};
    const std::string logged =
        (line.log_format == "json" ? entry.dump(-1, ' ', false, Json::error_handler_t::replace) : said) +
        "\n";
    const UniqueFd log(::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0700));
    if (log) (void)!::write(log.get(), logged.data(), logged.size());
    return kFailed;
}

}  // namespace postern
