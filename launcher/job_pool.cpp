// SPDX-License-Identifier: Apache-2.0
#include "launcher/job_pool.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <utility>

#include "broker-core/programs.h"
#include "broker-core/scope_guard.h"
#include "launcher/cgroup_events.h"
#include "launcher/exit_reason.h"
#include "launcher/job_environment.h"
#include "launcher/pool_summary.h"
#include "launcher/report.h"

namespace postern {
namespace {

using std::chrono::steady_clock;

/// How much of a job's output reports have: more of what failed.
constexpr std::uint64_t kKeptOfFailed = 64 << 10;
constexpr std::uint64_t kKeptOfPassed = 4 << 10;

double seconds_since(steady_clock::time_point begin) {
    return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

std::string describe_end(const JobAttempt& attempt) {
    if (attempt.reason == "error") return attempt.message;
    const std::string how = fmt::format("status {} after {:.2f} s", attempt.status, attempt.seconds);
    return attempt.message.empty() ? how : fmt::format("{}: {}", how, attempt.message);
}

}  // namespace

PoolResult JobPool::run(const std::vector<Job>& jobs) {
    const auto begin = steady_clock::now();
    result_.started = static_cast<std::int64_t>(std::time(nullptr));
    for (const Job& job : jobs) {
        JobResult& each = result_.jobs.emplace_back();
        each.job = job;
    }
    JobSchedule schedule(jobs.size(), rules_.schedule);
    if (const int fd = source_.freed_fd(); fd >= 0) supervisor_.watch(fd, [this] { none_free_ = false; });
    for (bool done = false; !done;) {
        heed_signals(schedule);
        JobSchedule::Step step = schedule.next(source_.in_service());
        if (step == JobSchedule::Step::Start && none_free_) step = JobSchedule::Step::Wait;
        switch (step) {
            case JobSchedule::Step::Start: {
                // Who was told to end, or has a slice to clean, does that first.
                const size_t before = running_.size();
                take_in(schedule, std::chrono::milliseconds(0));
                if (running_.size() == before && !supervisor_.asked_to_end()) start(schedule);
                break;
            }
            case JobSchedule::Step::Wait:
                // The slices are busy: now there is time for what is not urgent.
                report_finished();
                progress_.show(counts());
                if (may_get_ahead(schedule) && source_.get_ahead(spec_)) {
                    take_in(schedule, std::chrono::milliseconds(0));
                    break;
                }
                take_in(schedule,
                        progress_.has_line() ? std::optional(std::chrono::milliseconds(1000)) : std::nullopt);
                break;
            case JobSchedule::Step::Reset:
                reset(schedule);
                break;
            case JobSchedule::Step::Done:
                done = true;
                break;
        }
    }
    result_.working = seconds_since(begin);
    report_finished();
    progress_.clear();
    if (const int fd = source_.freed_fd(); fd >= 0) supervisor_.unwatch(fd);
    if (auto closed = source_.close(); !closed) note_problem(closed.error().message);
    for (JobResult& each : result_.jobs) {
        // One that waited for its next attempt has failed by its last.
        if (each.state == JobResult::State::NotRun && !each.attempts.empty())
            each.state = JobResult::State::Failed;
    }
    result_.seconds = seconds_since(begin);
    result_.status = pool_status(result_);
    return std::move(result_);
}

void JobPool::note_problem(const std::string& problem) {
    progress_.clear();
    (void)postern::report(Error{problem, 0}, kLaunchFailed);
    if (result_.problem.empty()) result_.problem = problem;
}

/// A signal that a setup or teardown program has got instead of the clients. Whether there was one.
bool JobPool::forward_interruption() {
    const int signal = take_interruption();
    if (signal != 0) supervisor_.forward(signal);
    return signal != 0;
}

void JobPool::heed_signals(JobSchedule& schedule) {
    if (!supervisor_.asked_to_end() || (running_.empty() && schedule.waiting() == 0)) return;
    if (result_.interrupted == 0) {
        result_.interrupted = supervisor_.first_end_signal();
        progress_.say("postern: {}: no further job begins; {} still run{}\n",
                      signal_name(result_.interrupted), running_.size(),
                      running_.empty() ? "" : ", and a second signal kills them");
    }
    schedule.stop();
    if (supervisor_.end_signals() < 2 || std::exchange(killed_, true)) return;
    for (const auto& [number, attempt] : running_) {
        if (RunningClient* client = supervisor_.client(number)) client->kill();
    }
}

/// Not for clients that never come, nor for those behind a reset that takes it all with it.
bool JobPool::may_get_ahead(const JobSchedule& schedule) const {
    return schedule.waiting() > 0 && !rules_.schedule.reset_between && !supervisor_.asked_to_end();
}

SandboxSpec JobPool::spec_of(const JobResult& job) const {
    SandboxSpec spec = spec_;
    spec.argv = job.job.command;
    set_variable(spec.env, "POSTERN_JOB", std::to_string(job.job.number));
    if (rules_.timeout)
        spec.time_limit = std::min(*rules_.timeout, spec.time_limit.value_or(*rules_.timeout));
    return spec;
}

void JobPool::start(JobSchedule& schedule) {
    const size_t index = schedule.take();
    JobResult& job = result_.jobs[index];
    const auto number = static_cast<unsigned>(job.attempts.size() + 1);
    const std::string log =
        rules_.log_folder.empty() ? "" : fmt::format("{}/{}", rules_.log_folder, log_name(job.job, number));
    auto output = log.empty() ? JobOutput::unnamed() : JobOutput::in_file(log);
    if (!output) {
        note_problem(output.error().message);
        schedule.put_back(index);
        schedule.stop();
        return;
    }
    ScopeGuard removes_log([&log] {
        if (!log.empty()) ::unlink(log.c_str());
    });
    const auto begin = steady_clock::now();
    auto started = [&]() -> Result<decltype(source_.start({}))> {
        POSTERN_ASSIGN(const auto redirected, output->redirect());
        return source_.start(spec_of(job));
    }();
    const bool interrupted = forward_interruption();
    if (!started) {
        note_problem(started.error().message);
        schedule.put_back(index);
        schedule.stop();
        return;
    }
    if (*started && !**started) {
        none_free_ = true;
        schedule.put_back(index);
        return;
    }
    if (!*started && interrupted) {
        schedule.put_back(index);
        return;
    }
    removes_log.dismiss();
    Attempt attempt{index, 0, -1, std::move(*output), {}, begin, false};
    attempt.told.log = log;
    if (*started) {
        attempt.slice = (**started)->slice;
        attempt.cgroup_fd = (**started)->cgroup_fd;
        attempt.told.slice = attempt.slice;
        running_.emplace(supervisor_.add(std::move((**started)->client)), std::move(attempt));
        return;
    }
    const SliceSource::Refused& refused = started->error();
    attempt.told.slice = refused.slice;
    attempt.told.status = refused.why.exit_status;
    attempt.told.reason = "error";
    attempt.told.message = refused.why.error.message;
    attempt.told.seconds = seconds_since(begin);
    if (refused.why.exit_status == kLaunchFailed) {
        // Not the job's fault: it may run on another slice.
        note_problem(refused.why.error.message);
        attempt.again = source_.in_service() > 0;
        schedule.put_back(index);
    } else {
        attempt.again = schedule.ended(index, false);
    }
    job.attempts.push_back(attempt.told);
    finished_.push_back(std::move(attempt));
}

/// Waits for the next thing that happens, `most` at the longest, and deals with it.
void JobPool::take_in(JobSchedule& schedule, std::optional<std::chrono::milliseconds> most) {
    auto ended = supervisor_.wait_event(most);
    if (!ended) {
        note_problem(ended.error().message);
        schedule.stop();
        for (const auto& [number, attempt] : running_) {
            if (RunningClient* client = supervisor_.client(number)) client->kill();
        }
        return;
    }
    heed_signals(schedule);  // an attempt that a signal has ended is the last
    if (*ended) end(schedule, **ended);
}

void JobPool::end(JobSchedule& schedule, const Supervisor::Ended& ended) {
    auto node = running_.extract(ended.client);
    Attempt attempt = std::move(node.mapped());
    const CgroupEvents events = read_cgroup_events(attempt.cgroup_fd);
    const ExitReason reason = find_exit_reason(ended.exit, {events, std::nullopt, !spec_.seccomp.empty()});
    attempt.told.seconds = seconds_since(attempt.begin);
    attempt.told.status = ended.exit.status();
    attempt.told.reason = exit_reason_name(reason.kind);
    attempt.told.signal = reason.signal;
    if (reason.kind == ExitReason::Kind::Signal)
        attempt.told.message = fmt::format("killed by {}", signal_name(reason.signal));
    if (const auto lines = exit_messages(reason, events); !lines.empty())
        attempt.told.message = lines.front();

    const bool passed = attempt.told.status == 0;
    JobResult& job = result_.jobs[attempt.job];
    attempt.again = schedule.ended(attempt.job, passed);
    job.attempts.push_back(attempt.told);
    if (!attempt.again) job.state = passed ? JobResult::State::Passed : JobResult::State::Failed;

    auto cleaned = source_.end(attempt.slice);
    none_free_ = false;
    // A teardown that a signal has ended is no failure: nothing begins on this slice any more.
    if (!forward_interruption() && !cleaned) note_problem(cleaned.error().message);
    finished_.push_back(std::move(attempt));
}

void JobPool::reset(JobSchedule& schedule) {
    report_finished();
    auto done = source_.reset();
    const bool interrupted = forward_interruption();
    if (done) {
        schedule.was_reset();
        return;
    }
    if (!interrupted) note_problem(done.error().message);
    schedule.stop();
}

void JobPool::report_finished() {
    for (Attempt& attempt : finished_) report(attempt);
    finished_.clear();
}

void JobPool::report(Attempt& attempt) {
    JobResult& job = result_.jobs[attempt.job];
    const JobAttempt& told = attempt.told;
    const std::string where = told.slice ? fmt::format(" on slice {}", *told.slice) : "";
    if (rules_.log_folder.empty()) {
        progress_.clear();
        (void)write_out(rules_.output_fd, fmt::format("==> job {}{}: {}: {}\n", job.job.number, where,
                                                      describe_end(told), job.job.text));
        if (auto copied = attempt.output.copy_to(rules_.output_fd); !copied)
            note_problem(copied.error().message);
    }
    if (rules_.keep_output) {
        const auto size = attempt.output.size();
        auto tail = attempt.output.tail(told.status == 0 ? kKeptOfPassed : kKeptOfFailed);
        job.output = tail ? std::move(*tail) : "";
        job.output_size = size ? *size : 0;
    }
    if (told.status == 0) return;
    progress_.say("postern: job {}{}: {}{}: {}\n", job.job.number, where, describe_end(told),
                  attempt.again ? "; it will be tried again" : "", job.job.text);
}

PoolCounts JobPool::counts() const {
    return {result_.jobs.size(), result_.count(JobResult::State::Passed),
            result_.count(JobResult::State::Failed), running_.size()};
}

}  // namespace postern
