// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

namespace postern {

/// Which job is to begin when: in the order of the list, failed ones again behind the others. Pure.
class JobSchedule {
  public:
    struct Rules {
        unsigned at_once = 1;        ///< jobs that may run side by side
        unsigned retries = 0;        ///< further attempts of one that fails
        bool fail_fast = false;      ///< none begins after one has failed for good
        bool reset_between = false;  ///< all end, and the device is reset, before more begin
    };
    enum class Step {
        Start,  ///< take() a job and start it
        Wait,   ///< until one ends, or a place becomes free
        Reset,  ///< reset the device and tell was_reset()
        Done,   ///< none runs, none will
    };

    JobSchedule(std::size_t jobs, Rules rules);

    /// `places`: where a job could run, free or not. 0: there will be none.
    [[nodiscard]] Step next(unsigned places) const;

    /// The job that begins now; only after Step::Start.
    [[nodiscard]] std::size_t take();
    /// It could not begin, for a reason that is not its own: it is the first to be taken again.
    void put_back(std::size_t job);
    /// It has ended. Whether it is to run again.
    bool ended(std::size_t job, bool passed);
    void was_reset() { begun_ = 0; }
    /// No further job begins.
    void stop() { waiting_.clear(), stopped_ = true; }

    [[nodiscard]] std::size_t running() const { return running_; }
    [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

  private:
    Rules rules_;
    std::deque<std::size_t> waiting_;
    std::vector<unsigned> failures_;  ///< by job
    std::size_t running_ = 0;
    std::size_t begun_ = 0;  ///< since the last reset
    bool stopped_ = false;
};

}  // namespace postern
