// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launcher/job.h"
#include "launcher/job_output.h"
#include "launcher/job_schedule.h"
#include "launcher/pool_progress.h"
#include "launcher/sandbox_spec.h"
#include "launcher/slice_source.h"
#include "launcher/supervisor.h"

namespace postern {

/// Runs a list of jobs over the slices of a source, as a job server does.
class JobPool {
  public:
    struct Rules {
        JobSchedule::Rules schedule;
        std::optional<std::chrono::milliseconds> timeout;  ///< of each attempt
        std::string log_folder;    ///< empty: what a job says is printed at its end …
        int output_fd = 1;         ///< … here; borrowed
        bool keep_output = false;  ///< JobResult::output is wanted
    };

    /// `spec` is every job's but for its command. All but `rules` are borrowed.
    JobPool(Supervisor& supervisor, SliceSource& source, PoolProgress& progress, const SandboxSpec& spec,
            Rules rules)
        : supervisor_(supervisor),
          source_(source),
          progress_(progress),
          spec_(spec),
          rules_(std::move(rules)) {}

    /// Runs `jobs` to their end, or until a signal asks to end; closes the source. Fills what PoolResult has
    /// beside the names.
    [[nodiscard]] PoolResult run(const std::vector<Job>& jobs);

  private:
    /// An attempt between its start and its report.
    struct Attempt {
        std::size_t job = 0;
        unsigned slice = 0;
        int cgroup_fd = -1;
        JobOutput output;
        JobAttempt told;
        std::chrono::steady_clock::time_point begin;
        bool again = false;  ///< it is to be tried once more
    };

    [[nodiscard]] bool may_get_ahead(const JobSchedule& schedule) const;
    [[nodiscard]] SandboxSpec spec_of(const JobResult& job) const;
    void start(JobSchedule& schedule);
    void take_in(JobSchedule& schedule, std::optional<std::chrono::milliseconds> most);
    void end(JobSchedule& schedule, const Supervisor::Ended& ended);
    void reset(JobSchedule& schedule);
    void heed_signals(JobSchedule& schedule);
    [[nodiscard]] bool forward_interruption();
    void note_problem(const std::string& problem);
    void report_finished();
    void report(Attempt& attempt);
    [[nodiscard]] PoolCounts counts() const;

    Supervisor& supervisor_;
    SliceSource& source_;
    PoolProgress& progress_;
    const SandboxSpec& spec_;
    Rules rules_;
    PoolResult result_;
    std::map<std::size_t, Attempt> running_;  ///< by the supervisor's number
    std::vector<Attempt> finished_;           ///< and not yet reported
    bool none_free_ = false;
    bool killed_ = false;
};

}  // namespace postern
