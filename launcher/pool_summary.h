// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "broker-core/json_reader.h"
#include "launcher/job.h"

namespace postern {

/// What became of the jobs, for programs; docs/pool.md describes it. Pure.
[[nodiscard]] Json pool_summary(const PoolResult& pool);

/// Exit status of a pool: 125 if postern itself failed; else 128 + the signal that ended it before its time;
/// else the highest status of a job, by its last attempt. Pure.
[[nodiscard]] int pool_status(const PoolResult& pool);

}  // namespace postern
