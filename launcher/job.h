// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace postern {

/// One command of a pool's list.
struct Job {
    unsigned number = 0;  ///< from 1 on, in the order of the list
    std::vector<std::string> command;
    std::string text;  ///< as it was written, or as it could have been
};

/// One run of it.
struct JobAttempt {
    std::optional<unsigned> slice;  ///< nullopt: it got none
    int status = 0;                 ///< as of `postern run`
    std::string reason;             ///< see exit_reason_name(); "error": no client came to run
    int signal = 0;                 ///< that ended it, 0: none
    double seconds = 0;
    std::string log;      ///< file; empty: none
    std::string message;  ///< what a person should know of its end; may be empty
};

/// A job and what became of it.
struct JobResult {
    enum class State {
        Passed,
        Failed,
        NotRun,  ///< the pool ended before it could begin, or begin again
    };

    Job job;
    std::vector<JobAttempt> attempts;
    State state = State::NotRun;
    std::string output;             ///< the end of what the last attempt said, for reports
    std::uint64_t output_size = 0;  ///< of all that it said, in bytes

    [[nodiscard]] const JobAttempt* last() const { return attempts.empty() ? nullptr : &attempts.back(); }
};

/// All of it, for reports.
struct PoolResult {
    std::string profile;
    std::string device;        ///< PCI address; empty: none
    std::int64_t started = 0;  ///< seconds since 1970, UTC
    double seconds = 0;
    double working = 0;   ///< of these, from the first start to the last end
    int status = 0;       ///< exit status of the pool
    int interrupted = 0;  ///< the signal that ended it before its time, 0: none
    std::string problem;  ///< what went wrong beside the jobs; empty: nothing
    std::vector<JobResult> jobs;

    [[nodiscard]] unsigned count(JobResult::State state) const {
        unsigned found = 0;
        for (const JobResult& each : jobs) found += each.state == state ? 1 : 0;
        return found;
    }
};

}  // namespace postern
