// SPDX-License-Identifier: Apache-2.0
#include "launcher/broker_bench.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "broker-core/broker_client.h"
#include "broker-core/file.h"
#include "broker-core/pci.h"
#include "broker-core/profile_reader.h"
#include "broker-core/scope_guard.h"
#include "launcher/brokered_slices.h"
#include "launcher/local_slices.h"
#include "launcher/plain_slices.h"
#include "launcher/pool_bench.h"
#include "launcher/sandbox_from_profile.h"
#include "launcher/supervisor.h"

extern char** environ;

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
}

void pause_shortly() {
    const timespec pause{0, 1'000'000};
    ::nanosleep(&pause, nullptr);
}

/// `postern broker` with a configuration and a socket of its own, ended with this.
class OwnBroker {
  public:
    [[nodiscard]] static Result<std::unique_ptr<OwnBroker>> start(const std::string& device,
                                                                  const std::string& profile) {
        std::string folder = "/run/postern-bench-XXXXXX";
        if (::mkdtemp(folder.data()) == nullptr) {
            const int error = errno;
            return fail_errno(error, "cannot make a folder in /run");
        }
        auto broker = std::unique_ptr<OwnBroker>(new OwnBroker(std::move(folder)));
        POSTERN_TRY(broker->run(device, profile));
        return broker;
    }
    OwnBroker(const OwnBroker&) = delete;
    OwnBroker& operator=(const OwnBroker&) = delete;
    ~OwnBroker() {
        if (pid_ > 0) {
            if (auto client = BrokerClient::connect(socket())) {
                BrokerRequest stop;
                stop.op = BrokerRequest::Op::Stop;
                stop.kill = true;
                (void)client->ask(stop);
            } else {
                ::kill(pid_, SIGKILL);
            }
            ::waitpid(pid_, nullptr, 0);
        }
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

    [[nodiscard]] std::string socket() const { return folder_ + "/run/socket"; }

  private:
    explicit OwnBroker(std::string folder) : folder_(std::move(folder)) {}

    Status run(const std::string& device, const std::string& profile) {
        const std::string config = folder_ + "/devices.d";
        if (::mkdir(config.c_str(), 0755) != 0) {
            const int error = errno;
            return fail_errno(error, "cannot make {}", config);
        }
        const Json document{{"postern", 1}, {"device", device}, {"profile", profile}};
        POSTERN_TRY(replace_file(config + "/device.json", document.dump()));
        const std::string program = program_prefix() + "/bin/postern";
        std::array<std::string, 7> words{"postern",  "broker", "--config",       config,
                                         "--socket", socket(), "--keeper=holder"};
        std::vector<char*> argv;
        argv.reserve(words.size() + 1);
        for (std::string& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        // Its log would stand between the figures.
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
        const int error = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), environ);
        ::posix_spawn_file_actions_destroy(&actions);
        if (error != 0) return fail_errno(error, "cannot run {}", program);
        const auto deadline = Clock::now() + std::chrono::seconds(30);
        while (true) {
            auto client = BrokerClient::connect(socket());
            if (client) return {};
            if (Clock::now() > deadline) return propagate(std::move(client), "the broker does not begin");
            pause_shortly();
        }
    }

    std::string folder_;
    pid_t pid_ = -1;
};

struct Side {
    const char* name;
    const char* label;
};
constexpr std::array<Side, 3> kSides{
    {{"plain", "no device"}, {"in-process", "in-process"}, {"broker", "broker"}}};

struct BrokerFigures {
    double start = 0;  ///< ms, median
    double cycle = 0;  ///< ms, median
    double rate = 0;   ///< grants per second
    double lost = -1;  ///< per cent
};

/// Starts one client; waits until a slice is free.
Result<SliceSource::Started> start_one(SliceSource& source, const SandboxSpec& spec) {
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (true) {
        auto started = source.start(spec);
        if (!started) return Failure(std::move(started.error().why.error));
        if (*started) return std::move(**started);
        if (Clock::now() > deadline) return fail("no slice becomes free");
        pause_shortly();
    }
}

/// `count` clients, in as many slices as there are. Seconds from the first request to the last end.
Result<double> flow(Supervisor& supervisor, SliceSource& source, const SandboxSpec& spec, unsigned count,
                    unsigned places) {
    std::map<size_t, unsigned> running;  ///< slices, by the supervisor's number
    const auto begin = Clock::now();
    for (unsigned started = 0; started < count || !running.empty();) {
        if (started < count && running.size() < places) {
            auto one = source.start(spec);
            if (!one) return Failure(std::move(one.error().why.error));
            if (*one) {
                const unsigned slice = (*one)->slice;
                running[supervisor.add(std::move((*one)->client))] = slice;
                ++started;
                continue;
            }
            if (running.empty()) {
                pause_shortly();
                continue;
            }
        }
        POSTERN_ASSIGN(const Supervisor::Ended ended, supervisor.wait_any());
        const unsigned slice = running.at(ended.client);
        running.erase(ended.client);
        POSTERN_TRY(source.end(slice));
        if (ended.exit.status() != 0) return fail("a client ended with status {}", ended.exit.status());
    }
    return milliseconds(Clock::now() - begin) / 1000;
}

Result<BrokerFigures> measure(Supervisor& supervisor, SliceSource& source, const BrokerBenchOptions& options,
                              SandboxSpec spec, unsigned places) {
    BrokerFigures figures;
    std::vector<double> starts;
    std::vector<double> cycles;
    spec.argv = {"/bin/true"};
    // The first opens the device and loads the guard.
    for (unsigned i = 0; i <= options.grants; ++i) {
        const auto begin = Clock::now();
        POSTERN_ASSIGN(SliceSource::Started started, start_one(source, spec));
        const auto runs = Clock::now();
        const size_t number = supervisor.add(std::move(started.client));
        POSTERN_ASSIGN(const Supervisor::Ended ended, supervisor.wait_any());
        if (ended.client != number || ended.exit.status() != 0)
            return fail("a client ended with status {}", ended.exit.status());
        POSTERN_TRY(source.end(started.slice));
        if (i == 0) continue;
        starts.push_back(milliseconds(runs - begin));
        cycles.push_back(milliseconds(Clock::now() - begin));
    }
    figures.start = median(starts);
    figures.cycle = median(cycles);
    POSTERN_ASSIGN(const double seconds, flow(supervisor, source, spec, options.grants, places));
    figures.rate = options.grants / seconds;
    if (options.jobs > 0) {
        constexpr std::chrono::milliseconds kJob(100);
        POSTERN_ASSIGN(const double worked, time_pool(supervisor, source, spec, places, options.jobs, kJob));
        // What counts is the job's own tenth of a second, not what its process takes to begin and end.
        figures.lost = time_lost(worked, places, options.jobs, kJob);
    }
    return figures;
}

}  // namespace

Result<std::vector<BenchResult>> measure_grants(const BrokerBenchOptions& options,
                                                const std::function<Status(unsigned)>& told) {
    POSTERN_ASSIGN(const std::string device, parse_bdf(options.device));
    POSTERN_ASSIGN(const LoadedProfile loaded, load_profile(options.profile));
    const Profile& profile = loaded.profile;
    POSTERN_ASSIGN(const SandboxSpec spec, sandbox_from_profile(profile, {"PATH=/usr/bin:/bin"}));
    std::vector<BenchResult> results(options.jobs > 0 ? 4 : 3);
    results[0] = {"start", "From the request to the running client", "ms", 2, {}};
    results[1] = {"grant", "A grant's whole life: request, client of true(1), slice free again", "ms", 2, {}};
    results[2] = {"rate", fmt::format("Grants per second, {} at once", profile.slices), "1/s", 1, {}};
    if (options.jobs > 0)
        results[3] = {"lost",
                      fmt::format("A pool's time lost between jobs of 100 ms, {} at once", profile.slices),
                      "%",
                      1,
                      {}};
    for (BenchResult& result : results) {
        for (const Side& side : kSides) result.sides.push_back({side.name, side.label, {}});
    }
    for (unsigned round = 0; round < options.rounds; ++round) {
        POSTERN_TRY(told(round));
        for (size_t side = 0; side < kSides.size(); ++side) {
            POSTERN_ASSIGN(Supervisor supervisor, Supervisor::create());
            std::unique_ptr<OwnBroker> broker;
            std::unique_ptr<SliceSource> source;
            if (side == 0) {
                source = std::make_unique<PlainSlices>(profile.slices,
                                                       std::vector<std::pair<std::string, std::string>>());
            } else if (side == 1) {
                POSTERN_ASSIGN(GrantedFiles files, GrantedFiles::open(profile));
                POSTERN_ASSIGN(source,
                               LocalSlices::open(profile, device, std::move(files), supervisor, true));
            } else {
                POSTERN_ASSIGN(broker, OwnBroker::start(device, options.profile));
                POSTERN_ASSIGN(source,
                               BrokeredSlices::open(profile, device, {broker->socket(), profile.name}));
            }
            POSTERN_ASSIGN(const BrokerFigures figures,
                           measure(supervisor, *source, options, spec, profile.slices));
            POSTERN_TRY(source->close());
            const std::array<double, 4> values{figures.start, figures.cycle, figures.rate, figures.lost};
            for (size_t i = 0; i < results.size(); ++i) results[i].sides[side].values.push_back(values[i]);
        }
    }
    return results;
}

}  // namespace postern
