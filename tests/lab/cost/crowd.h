// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "broker-core/result.h"
#include "tests/lab/cost/child_process.h"

namespace postern::cost {

/// Guarded files of other processes: eventfds, a hundred in each process, since registering looks through all
/// files of the process that does it. They are closed at the end.
class Crowd {
  public:
    /// Until there are `files` of them.
    [[nodiscard]] Status grow_to(size_t files);

  private:
    std::vector<ChildProcess> processes_;
    size_t files_ = 0;
};

}  // namespace postern::cost
