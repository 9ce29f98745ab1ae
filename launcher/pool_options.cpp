// SPDX-License-Identifier: Apache-2.0
#include "launcher/pool_options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <thread>

#include "broker-core/quantity.h"

namespace postern {

void PoolOptions::add_to(CLI::App& command) {
    command
        .add_option("--commands", commands,
                    "run the commands in this file (-: on stdin), one a line, over the free slices")
        ->type_name("FILE");
    for_jobs_ = {
        command.add_option("--jobs", jobs, "jobs at once; as many as there are slices without")
            ->type_name("N")
            ->check(CLI::Range(1, 65535)),
        command
            .add_option_function<std::string>(
                "--timeout",
                [this](const std::string& text) {
                    const auto limit = parse_duration(text);
                    if (!limit || limit->count() == 0)
                        throw CLI::ValidationError("--timeout",
                                                   limit ? "0 is no time" : limit.error().message);
                    timeout = *limit;
                },
                "kill a job after this time, status 124")
            ->type_name("TIME"),
        command.add_option("--retry", retries, "run a job that fails up to N times more, behind the others")
            ->type_name("N")
            ->check(CLI::Range(0, 1000)),
        command
            .add_option("--reset", reset,
                        "between jobs clean the slice, or wait for all and reset the device")
            ->type_name("slice|device")
            ->check(CLI::IsMember({"slice", "device"})),
        command
            .add_option("--log-dir", log_folder,
                        "write what each job says to a file of its own in this folder")
            ->type_name("DIR"),
        command.add_option("--junit", junit, "write JUnit's XML to this file")->type_name("FILE"),
        command.add_option("--summary", summary, "write a summary in JSON to this file (-: stdout)")
            ->type_name("FILE"),
        command.add_flag("--fail-fast", fail_fast, "begin no further job after one has failed"),
    };
    const std::string keep_going = "run all jobs whatever fails: the default";
    for_jobs_.push_back(command.add_flag("--keep-going", keep_going)->excludes(for_jobs_.back()));
    command
        .add_option_function<std::vector<std::string>>(
            "--ctest-resources",
            [this](const std::vector<std::string>& file) {
                ctest_resources = file.empty() || file[0].empty() ? "-" : file[0];
            },
            "write the slices as CTest's resource specification to this file, or to stdout, and do nothing "
            "else")
        ->type_name("[FILE]")
        ->expected(0, 1);
    LaunchOptions::add_to(command);
}

Status PoolOptions::check(const std::vector<std::string>& words) const {
    if (ctest_resources) {
        if (has_jobs() || !words.empty())
            return fail("--ctest-resources runs nothing: leave the commands out");
        return {};
    }
    if (!has_jobs()) {
        for (const CLI::Option* each : for_jobs_) {
            if (each->count() > 0)
                return fail("{} is for a list of jobs: --commands FILE, or \"-- CMD ::: VALUE…\"",
                            each->get_name());
        }
        if (device.empty()) return fail("--device is required; see `postern pool --help`");
        return {};
    }
    if (!commands.empty() && !words.empty())
        return fail("--commands: the jobs are in {}; leave \"{}\" out", commands, words.front());
    return {};
}

unsigned PoolOptions::at_once(const Profile& loaded) const {
    if (jobs != 0) return static_cast<unsigned>(jobs);
    if (loaded.device || !loaded.files.empty()) return loaded.slices;
    return std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace postern
