// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "broker-core/json_reader.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "launcher/job.h"
#include "launcher/pool_options.h"
#include "launcher/sandbox_spec.h"
#include "launcher/slice_source.h"
#include "launcher/supervisor.h"

namespace postern {

/// The list of jobs, checked against what the profile can do.
[[nodiscard]] Result<std::vector<Job>> read_jobs(const PoolOptions& options, const Profile& profile,
                                                 const std::vector<std::string>& words);

/// Makes the folder for logs, sees that reports can be written later, and takes stdin from the jobs.
[[nodiscard]] Status prepare_files(const PoolOptions& options);

/// Runs the jobs, writes the reports; the exit status.
[[nodiscard]] int run_jobs(const PoolOptions& options, const Profile& profile, Supervisor& supervisor,
                           SliceSource& source, const SandboxSpec& spec, const std::vector<Job>& jobs);

/// What --ctest-resources writes.
[[nodiscard]] Result<Json> describe_for_ctest(const PoolOptions& options, const Profile& profile);

}  // namespace postern
