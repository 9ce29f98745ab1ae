// SPDX-License-Identifier: Apache-2.0
#include "launcher/pool_bench.h"

#include <fcntl.h>

#include <memory>
#include <utility>

#include "broker-core/pci.h"
#include "broker-core/profile_reader.h"
#include "broker-core/unique_fd.h"
#include "launcher/job_pool.h"
#include "launcher/local_slices.h"
#include "launcher/plain_slices.h"
#include "launcher/pool_progress.h"
#include "launcher/sandbox_from_profile.h"

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

/// Of each round.
constexpr unsigned kLaunches = 10;

std::unique_ptr<SliceSource> sandboxes(unsigned count) {
    return std::make_unique<PlainSlices>(count, std::vector<std::pair<std::string, std::string>>());
}

/// Milliseconds from the request to the running client: nothing is prepared for it.
Result<double> time_launch(Supervisor& supervisor, SandboxSpec spec) {
    const auto source = sandboxes(1);
    spec.argv = {"/bin/true"};
    std::vector<double> times;
    for (unsigned i = 0; i < kLaunches; ++i) {
        const auto begin = Clock::now();
        auto started = source->start(spec);
        if (!started) return Failure(std::move(started.error().why.error));
        times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
        const unsigned slice = (*started)->slice;
        supervisor.add(std::move((*started)->client));
        POSTERN_TRY(supervisor.wait_any());
        POSTERN_TRY(source->end(slice));
    }
    return median(times);
}

}  // namespace

Result<double> time_pool(Supervisor& supervisor, SliceSource& source, const SandboxSpec& spec,
                         unsigned places, unsigned jobs, std::chrono::milliseconds job) {
    const UniqueFd nothing(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (!nothing) {
        const int error = errno;
        return fail_errno(error, "/dev/null");
    }
    std::vector<Job> list;
    list.reserve(jobs);
    const std::string seconds = fmt::format("{:.3f}", std::chrono::duration<double>(job).count());
    for (unsigned i = 1; i <= jobs; ++i) list.push_back({i, {"/bin/sleep", seconds}, "sleep " + seconds});
    JobPool::Rules rules;
    rules.schedule.at_once = places;
    rules.output_fd = nothing.get();
    PoolProgress progress(true);
    const PoolResult result = JobPool(supervisor, source, progress, spec, std::move(rules)).run(list);
    if (result.count(JobResult::State::Passed) == jobs && result.problem.empty()) return result.working;
    return fail("{} of {} jobs passed{}{}", result.count(JobResult::State::Passed), jobs,
                result.problem.empty() ? "" : ": ", result.problem);
}

double time_lost(double seconds, unsigned places, unsigned jobs, std::chrono::milliseconds job) {
    return 100 * (1 - std::chrono::duration<double>(job).count() * jobs / places / seconds);
}

Result<std::vector<BenchResult>> measure_pool(const PoolBenchOptions& options,
                                              const std::function<Status(unsigned)>& told) {
    std::string device;
    if (!options.device.empty()) {
        POSTERN_ASSIGN(device, parse_bdf(options.device));
    }
    const size_t sides = device.empty() ? 1 : 2;
    POSTERN_ASSIGN(const LoadedProfile loaded, load_profile(options.profile));
    const Profile& profile = loaded.profile;
    const unsigned places = profile.slices;
    const unsigned jobs = (options.jobs + places - 1) / places * places;
    const double job = std::chrono::duration<double, std::milli>(options.job).count();
    POSTERN_ASSIGN(const SandboxSpec spec, sandbox_from_profile(profile, {"PATH=/usr/bin:/bin"}));
    std::vector<BenchResult> results(3);
    results[0] = {
        "lost", fmt::format("Time lost between jobs of {} ms, {} at once", job, places), "%", 1, {}};
    results[1] = {
        "between", "The same for each job, the start and end of its own process with it", "ms", 2, {}};
    results[2] = {"launch", "From the request to a running /bin/true without a device", "ms", 2, {}};
    for (BenchResult& result : results) result.sides = {{"plain", "no device", {}}};
    for (size_t i = 0; i < 2 && sides == 2; ++i) results[i].sides.push_back({"slices", "slices", {}});
    for (unsigned round = 0; round < options.rounds; ++round) {
        POSTERN_TRY(told(round));
        for (size_t side = 0; side < sides; ++side) {
            POSTERN_ASSIGN(Supervisor supervisor, Supervisor::create());
            std::unique_ptr<SliceSource> source = sandboxes(places);
            if (side == 0) {
                POSTERN_ASSIGN(const double launch, time_launch(supervisor, spec));
                results[2].sides[0].values.push_back(launch);
            } else {
                POSTERN_ASSIGN(GrantedFiles files, GrantedFiles::open(profile));
                POSTERN_ASSIGN(source,
                               LocalSlices::open(profile, device, std::move(files), supervisor, true));
            }
            POSTERN_ASSIGN(const double seconds,
                           time_pool(supervisor, *source, spec, places, jobs, options.job));
            results[0].sides[side].values.push_back(time_lost(seconds, places, jobs, options.job));
            results[1].sides[side].values.push_back(1000 * seconds * places / jobs - job);
        }
    }
    return results;
}

}  // namespace postern
