// SPDX-License-Identifier: Apache-2.0
#include "launcher/job_schedule.h"

#include <algorithm>

namespace postern {

JobSchedule::JobSchedule(std::size_t jobs, Rules rules) : rules_(rules), failures_(jobs) {
    for (std::size_t job = 0; job < jobs; ++job) waiting_.push_back(job);
}

JobSchedule::Step JobSchedule::next(unsigned places) const {
    const std::size_t at_once = std::min(rules_.at_once, places);
    if (waiting_.empty() || at_once == 0) return running_ > 0 ? Step::Wait : Step::Done;
    if (rules_.reset_between) {
        // What begins before the reset begins together: a slice that is free again waits for the others.
        const bool all_begun = begun_ >= at_once || begun_ > running_;
        if (all_begun) return running_ > 0 ? Step::Wait : Step::Reset;
        return Step::Start;
    }
    return running_ < at_once ? Step::Start : Step::Wait;
}

std::size_t JobSchedule::take() {
    const std::size_t job = waiting_.front();
    waiting_.pop_front();
    ++running_;
    ++begun_;
    return job;
}

void JobSchedule::put_back(std::size_t job) {
    --running_;
    --begun_;
    if (!stopped_) waiting_.push_front(job);
}

bool JobSchedule::ended(std::size_t job, bool passed) {
    --running_;
    if (passed) return false;
    if (!stopped_ && failures_[job]++ < rules_.retries) {
        waiting_.push_back(job);
        return true;
    }
    if (rules_.fail_fast) stop();
    return false;
}

}  // namespace postern
