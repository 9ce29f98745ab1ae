// SPDX-License-Identifier: Apache-2.0
#include "launcher/pool_jobs.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string_view>
#include <utility>

#include "broker-core/file.h"
#include "broker-core/pci.h"
#include "broker-core/unique_fd.h"
#include "launcher/ctest_resources.h"
#include "launcher/job_list.h"
#include "launcher/job_pool.h"
#include "launcher/junit_report.h"
#include "launcher/pool_progress.h"
#include "launcher/pool_summary.h"
#include "launcher/report.h"

namespace postern {
namespace {

constexpr size_t kMostListBytes = 64 << 20;

/// That a report can be written to `path` when everything has run.
Status check_target(const char* option, const std::string& path) {
    if (path.empty() || path == "-") return {};
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    if (::access(folder.c_str(), W_OK | X_OK) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "{} {}: cannot write in its folder", option, path);
    }
    struct stat status = {};
    if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode))
        return fail("{} {}: is a folder", option, path);
    return {};
}

std::string hostname() {
    std::array<char, HOST_NAME_MAX + 1> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

}  // namespace

Result<std::vector<Job>> read_jobs(const PoolOptions& options, const Profile& profile,
                                   const std::vector<std::string>& words) {
    const bool shared = !options.device.empty() || !profile.files.empty();
    if (shared && options.at_once(profile) > profile.slices)
        return fail("--jobs {}: profile {} has {} slices", options.jobs, profile.name, profile.slices);
    if (options.reset == "device") {
        if (!profile.device) return fail("--reset device: profile {} has no device", profile.name);
        if (profile.device->reset == Reset::Never)
            return fail(
                "--reset device: profile {} says \"reset\": \"never\"; allow it with \"before\", \"after\" "
                "or "
                "\"both\"",
                profile.name);
        if (!profile.files.empty())
            return fail("--reset device: profile {} has \"files\", which are not the device's", profile.name);
    }
    if (options.commands.empty()) return jobs_of_arguments(words);
    if (options.commands == "-") {
        auto text = read_to_end(STDIN_FILENO, kMostListBytes);
        if (!text) return propagate(std::move(text), "--commands: stdin");
        return parse_job_list(*text, "stdin");
    }
    auto text = read_file(options.commands, kMostListBytes);
    if (!text) return propagate(std::move(text), "--commands");
    return parse_job_list(*text, options.commands);
}

Status prepare_files(const PoolOptions& options) {
    POSTERN_TRY(check_target("--junit", options.junit));
    POSTERN_TRY(check_target("--summary", options.summary));
    if (!options.log_folder.empty() && ::mkdir(options.log_folder.c_str(), 0755) != 0 && errno != EEXIST) {
        const int errnum = errno;
        return fail_errno(errnum, "--log-dir {}", options.log_folder);
    }
    const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!nothing || ::dup2(nothing.get(), STDIN_FILENO) < 0) {
        const int errnum = errno;
        return fail_errno(errnum, "/dev/null");
    }
    return {};
}

int run_jobs(const PoolOptions& options, const Profile& profile, Supervisor& supervisor, SliceSource& source,
             const SandboxSpec& spec, const std::vector<Job>& jobs) {
    JobPool::Rules rules;
    rules.schedule.at_once = options.at_once(profile);
    rules.schedule.retries = static_cast<unsigned>(options.retries);
    rules.schedule.fail_fast = options.fail_fast;
    rules.schedule.reset_between = options.reset == "device";
    rules.timeout = options.timeout;
    rules.log_folder = options.log_folder;
    rules.output_fd = options.summary == "-" ? STDERR_FILENO : STDOUT_FILENO;
    rules.keep_output = !options.junit.empty();

    PoolProgress progress(options.quiet);
    PoolResult result = JobPool(supervisor, source, progress, spec, std::move(rules)).run(jobs);
    result.profile = profile.name;
    result.device = options.device;

    using State = JobResult::State;
    const unsigned not_run = result.count(State::NotRun);
    progress.say("postern: {} job{}: {} passed, {} failed{}, in {:.1f} s\n", jobs.size(),
                 jobs.size() == 1 ? "" : "s", result.count(State::Passed), result.count(State::Failed),
                 not_run == 0 ? "" : fmt::format(", {} not run", not_run), result.seconds);
    int status = result.status;
    const auto write = [&status](const std::string& path, const std::string& text) {
        if (path == "-") {
            if (write_out(STDOUT_FILENO, text) != 0) status = kLaunchFailed;
        } else if (!path.empty()) {
            if (auto written = replace_file(path, text); !written)
                status = report(written.error(), kLaunchFailed);
        }
    };
    if (!options.junit.empty()) write(options.junit, junit_report(result, hostname()));
    if (!options.summary.empty())
        write(options.summary,
              pool_summary(result).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return status;
}

Result<Json> describe_for_ctest(const PoolOptions& options, const Profile& profile) {
    std::string bdf;
    if (!options.device.empty()) {
        POSTERN_ASSIGN(bdf, parse_bdf(options.device));
    }
    return ctest_resource_spec(bdf, profile.slices);
}

}  // namespace postern
