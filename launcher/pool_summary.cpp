// SPDX-License-Identifier: Apache-2.0
#include "launcher/pool_summary.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <string>
#include <string_view>

#include "launcher/exit_reason.h"
#include "launcher/report.h"

namespace postern {
namespace {

std::string_view state_name(JobResult::State state) {
    switch (state) {
        case JobResult::State::Passed:
            return "passed";
        case JobResult::State::Failed:
            return "failed";
        case JobResult::State::NotRun:
            break;
    }
    return "not run";
}

Json text_or_null(const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
}

double milliseconds_exact(double seconds) {
    return std::round(seconds * 1000) / 1000;
}

/// What an attempt tells of itself; without one all is null.
Json attempt_entry(const JobAttempt* attempt) {
    if (attempt == nullptr)
        return {{"slice", nullptr}, {"status", nullptr}, {"reason", nullptr}, {"signal", nullptr},
                {"seconds", 0.0},   {"log", nullptr},    {"message", nullptr}};
    return {{"slice", attempt->slice ? Json(*attempt->slice) : Json(nullptr)},
            {"status", attempt->status},
            {"reason", attempt->reason},
            {"signal", attempt->signal != 0 ? Json(signal_name(attempt->signal)) : Json(nullptr)},
            {"seconds", milliseconds_exact(attempt->seconds)},
            {"log", text_or_null(attempt->log)},
            {"message", text_or_null(attempt->message)}};
}

}  // namespace

Json pool_summary(const PoolResult& pool) {
    using State = JobResult::State;
    Json jobs = Json::array();
    for (const JobResult& each : pool.jobs) {
        Json entry = attempt_entry(each.last());
        Json attempts = Json::array();
        for (const JobAttempt& attempt : each.attempts) attempts.push_back(attempt_entry(&attempt));
        entry["job"] = each.job.number;
        entry["command"] = each.job.command;
        entry["text"] = each.job.text;
        entry["state"] = state_name(each.state);
        entry["attempts"] = std::move(attempts);
        jobs.push_back(std::move(entry));
    }
    return {{"postern", 1},
            {"profile", pool.profile},
            {"device", text_or_null(pool.device)},
            {"started",
             fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(pool.started)))},
            {"seconds", milliseconds_exact(pool.seconds)},
            {"status", pool.status},
            {"interrupted", pool.interrupted != 0 ? Json(signal_name(pool.interrupted)) : Json(nullptr)},
            {"problem", text_or_null(pool.problem)},
            {"count",
             {{"jobs", pool.jobs.size()},
              {"passed", pool.count(State::Passed)},
              {"failed", pool.count(State::Failed)},
              {"not run", pool.count(State::NotRun)}}},
            {"jobs", std::move(jobs)}};
}

int pool_status(const PoolResult& pool) {
    if (!pool.problem.empty()) return kLaunchFailed;
    if (pool.interrupted != 0) return 128 + pool.interrupted;
    int worst = 0;
    for (const JobResult& each : pool.jobs) {
        if (each.state == JobResult::State::Failed && each.last() != nullptr)
            worst = std::max(worst, each.last()->status);
    }
    return worst;
}

}  // namespace postern
