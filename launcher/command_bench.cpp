// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "broker-core/file.h"
#include "broker-core/json_reader.h"
#include "broker-core/profile_reader.h"
#include "broker-core/programs.h"
#include "broker-core/quantity.h"
#include "launcher/bench_report.h"
#include "launcher/broker_bench.h"
#include "launcher/commands.h"
#include "launcher/launch.h"
#include "launcher/launch_bench.h"
#include "launcher/pool_bench.h"
#include "launcher/report.h"
#include "launcher/sandbox_from_profile.h"
#include "launcher/supervisor.h"

namespace postern {
namespace {

struct BenchOptions {
    std::string device;
    std::string profile = "virtio-blk-queue";
    std::string report_folder;
    unsigned rounds = 9;
    double seconds = 2;
    unsigned depth = 32;
    bool json = false;
};

/// Our stdout is a memfd while this lives: what a client of the sandbox prints (it inherits 0, 1, 2) is
/// caught.
class CaughtStdout {
  public:
    static Result<CaughtStdout> create() {
        CaughtStdout caught;
        (void)std::fflush(stdout);
        caught.memory_ = UniqueFd(::memfd_create("postern-bench", MFD_CLOEXEC));
        caught.before_ = UniqueFd(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
        if (!caught.memory_ || !caught.before_ || ::dup2(caught.memory_.get(), STDOUT_FILENO) < 0) {
            const int error = errno;
            return fail_errno(error, "cannot catch a client's output");
        }
        return caught;
    }
    CaughtStdout(CaughtStdout&&) = default;
    ~CaughtStdout() {
        if (before_) ::dup2(before_.get(), STDOUT_FILENO);
    }
    [[nodiscard]] std::string text() const {
        std::string all(65536, '\0');
        const ssize_t got = ::pread(memory_.get(), all.data(), all.size(), 0);
        all.resize(got > 0 ? static_cast<size_t>(got) : 0);
        return all;
    }

  private:
    CaughtStdout() = default;
    UniqueFd memory_;
    UniqueFd before_;
};

/// reads_per_second of the client's JSON line, refused where a read was wrong.
Result<double> rate_of(const std::string& output) {
    const size_t end = output.rfind('}');
    const size_t begin = end == std::string::npos ? end : output.rfind('\n', end) + 1;
    if (end == std::string::npos) return fail("the client printed no result: \"{}\"", output.substr(0, 200));
    POSTERN_ASSIGN(const Json result, parse_json(std::string_view(output).substr(begin, end - begin + 1)));
    if (result.at("errors") != 0 || result.at("verified") != result.at("reads"))
        return fail("the client read wrong data: {}", output);
    return result.at("reads_per_second").get<double>();
}

/// The three ways of running the same client on the same, once prepared, queue.
class Bench {
  public:
    static Result<Bench> open(const BenchOptions& options) {
        POSTERN_ASSIGN(LoadedProfile loaded, load_profile(options.profile));
        Bench bench;
        POSTERN_ASSIGN(bench.client_, find_program("virtio-blk-client", loaded.profile.folder));
        POSTERN_ASSIGN(bench.proxy_, find_program("virtio-blk-proxy", loaded.profile.folder));
        bench.arguments_ = {"--json", "--seconds", fmt::format("{}", options.seconds), "--depth",
                            fmt::format("{}", options.depth)};
        POSTERN_ASSIGN(bench.spec_, sandbox_from_profile(loaded.profile, own_environment()));
        bench.spec_.argv = {bench.client_};
        bench.spec_.argv.insert(bench.spec_.argv.end(), bench.arguments_.begin(), bench.arguments_.end());
        POSTERN_ASSIGN(GrantedFiles files, GrantedFiles::open(loaded.profile));
        POSTERN_ASSIGN(LocalBroker broker,
                       LocalBroker::open(loaded.profile, options.device, std::move(files)));
        bench.broker_.emplace(std::move(broker));
        return bench;
    }

    /// The client owns a plain vfio fd, with no sandbox and no guard: the limit.
    Result<double> plain() { return run_unguarded({client_}); }

    /// Each doorbell and each completion goes over a unix socket to a process that holds the device.
    Result<double> proxied() { return run_unguarded({proxy_, client_}); }

    Result<double> inside() {
        POSTERN_ASSIGN(Supervisor supervisor, Supervisor::create());
        std::string output;
        {
            POSTERN_ASSIGN(const CaughtStdout caught, CaughtStdout::create());
            auto client = broker_->start(0, spec_);
            if (!client) return Failure(client.error().error);
            supervisor.add(std::move(*client));
            POSTERN_ASSIGN(const Supervisor::Ended ended, supervisor.wait_any());
            if (ended.exit.status() != 0) return fail("the client ended with status {}", ended.exit.status());
            output = caught.text();
        }
        POSTERN_TRY(broker_->end(0));
        return rate_of(output);
    }

    Status close() { return broker_->close(); }

  private:
    Bench() = default;

    Result<double> run_unguarded(ProgramLine line) {
        POSTERN_ASSIGN(const Grant grant, broker_->session().grant_unguarded(0));
        BorrowedFds fds;
        for (const NamedFd& each : grant.fds) fds.emplace_back(each.name, each.fd.get());
        line.insert(line.end(), arguments_.begin(), arguments_.end());
        std::string output;
        POSTERN_TRY(run_program(line, "/", fds, &output));
        POSTERN_TRY(broker_->end(0));
        return rate_of(output);
    }

    std::string client_;
    std::string proxy_;
    std::vector<std::string> arguments_;
    SandboxSpec spec_;
    std::optional<LocalBroker> broker_;
};

Result<BenchResult> measure(const BenchOptions& options) {
    POSTERN_ASSIGN(Bench bench, Bench::open(options));
    BenchResult result;
    result.title =
        fmt::format("Verified 4 KiB reads of one virtio-blk queue, depth {}, polling", options.depth);
    result.unit = "reads per second";
    result.sides = {{"plain", "plain vfio fd, no sandbox (the limit)", {}},
                    {"postern", "inside postern", {}},
                    {"proxy", "through a proxy over a unix socket", {}}};
    using Way = Result<double> (Bench::*)();
    constexpr Way kWays[] = {&Bench::plain, &Bench::inside, &Bench::proxied};
    for (unsigned round = 0; round < options.rounds; ++round) {
        for (size_t i = 0; i < result.sides.size(); ++i) {
            // Each round begins with another side, so that none is always first.
            const size_t side = (i + round) % result.sides.size();
            auto rate = (bench.*kWays[side])();
            if (!rate) return propagate(std::move(rate), result.sides[side].name);
            result.sides[side].values.push_back(*rate);
        }
        tell("postern: bench: round {} of {} done\n", round + 1, options.rounds);
    }
    POSTERN_TRY(bench.close());
    return result;
}

int run_bench(const BenchOptions& options) {
    if (options.device.empty()) {
        return report(
            Error{"bench: which device? name it with --device BDF (`postern devices` lists them); `postern "
                  "bench launch` needs none",
                  0},
            2);
    }
    auto result = measure(options);
    if (!result) return report(result.error(), kFailed);
    if (options.json) {
        fmt::print("{}\n", bench_json(*result).dump(2));
    } else {
        fmt::print("{}", bench_table(*result));
    }
    if (options.report_folder.empty()) return 0;
    if (auto written = write_bench_report(options.report_folder, bench_json(*result), {*result}); !written)
        return report(written.error(), kFailed);
    tell("postern: bench: wrote bench.json and bench.svg to {}\n", options.report_folder);
    return 0;
}

/// What the issue of a launch's price is about, in words: postern's median beside those it is compared with.
std::string compared(const std::vector<BenchResult>& figures) {
    std::string text;
    for (const BenchResult& figure : figures) {
        const auto of = [&](std::string_view name) {
            for (const BenchSide& side : figure.sides) {
                if (side.name == name) return median(side.values);
            }
            return 0.0;
        };
        for (const std::string_view other : {"bwrap", "floor"}) {
            if (of(other) > 0)
                text += fmt::format("{}: postern is {:.2f} x {}\n", figure.name, of("postern") / of(other),
                                    other);
        }
    }
    return text;
}

int run_launch_bench(const LaunchBenchOptions& measured, const BenchOptions& options) {
    // A signal ends it in order: between rounds, with nothing left in /tmp.
    auto supervisor = Supervisor::create();
    if (!supervisor) return report(supervisor.error(), kFailed);
    auto result = measure_launches(measured, [&](unsigned round) -> Status {
        tell("postern: bench launch: round {} of {} done\n", round, measured.rounds);
        while (supervisor->take_signal()) {
        }
        if (supervisor->asked_to_end()) return fail("a signal asked it to end");
        return {};
    });
    if (!result) return report(std::move(result.error()).within("bench launch"), kFailed);
    for (const std::string& each : result->left_out) tell("postern: bench launch: left out: {}\n", each);
    Json document{{"postern", 1}, {"left_out", result->left_out}, {"figures", Json::array()}};
    for (const BenchResult& figure : result->figures) {
        document["figures"].push_back(bench_json(figure));
        document["figures"].back()["name"] = figure.name;
        if (!options.json) fmt::print("{}\n", bench_table(figure));
    }
    if (options.json) {
        fmt::print("{}\n", document.dump(2));
    } else {
        fmt::print("{}", compared(result->figures));
    }
    if (options.report_folder.empty()) return 0;
    if (auto written = write_bench_report(options.report_folder, document, result->figures); !written)
        return report(written.error(), kFailed);
    tell("postern: bench launch: wrote bench.json and a chart of each table to {}\n", options.report_folder);
    return 0;
}

/// Runs `measure`, which is given whom to tell of each of its rounds, and writes what it found.
template <typename Measure>
int run_rounds(const std::string& name, unsigned rounds, const BenchOptions& options,
               const Measure& measure) {
    const auto results = measure([&](unsigned round) -> Status {
        tell("postern: {}: round {} of {}\n", name, round + 1, rounds);
        return {};
    });
    if (!results) return report(Error(results.error()).within(name), kFailed);
    Json document{{"postern", 1}, {"figures", Json::array()}};
    for (const BenchResult& figure : *results) {
        document["figures"].push_back(bench_json(figure));
        document["figures"].back()["name"] = figure.name;
        if (!options.json) fmt::print("{}\n", bench_table(figure));
    }
    if (options.json) fmt::print("{}\n", document.dump(2));
    if (options.report_folder.empty()) return 0;
    if (auto written = write_bench_report(options.report_folder, document, *results); !written)
        return report(written.error(), kFailed);
    return 0;
}

}  // namespace

Command add_bench_command(CLI::App& app) {
    auto options = std::make_shared<BenchOptions>();
    CLI::App* command = app.add_subcommand(
        "bench", "a client's reads per second: plain, inside postern, through a proxy; side by side");
    command->add_option("--device", options->device, "a virtio-blk device bound to vfio-pci")
        ->type_name("BDF");
    command->add_option("--profile", options->profile, "profile of the virtio-blk client")
        ->type_name("NAME|FILE")
        ->capture_default_str();
    command->add_option("--rounds", options->rounds, "rounds, each with every side")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--seconds", options->seconds, "time of one side in one round")
        ->check(CLI::Range(0.1, 600.0))
        ->capture_default_str();
    command->add_option("--depth", options->depth, "reads in flight")
        ->check(CLI::Range(1, 128))
        ->capture_default_str();
    command->add_flag("--json", options->json, "JSON instead of the table");
    command->add_option("--report", options->report_folder, "also write bench.json and bench.svg there")
        ->type_name("DIR");
    auto measured = std::make_shared<LaunchBenchOptions>();
    CLI::App* launch = command->add_subcommand(
        "launch",
        "time and memory of a sandbox of /bin/true: postern, a bare C launcher, and those installed here");
    launch->add_option("--rounds", measured->rounds, "rounds, each with every launcher")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    launch
        ->add_option("--launches", measured->launches,
                     "launches of each launcher in one round, alone and in pairs")
        ->check(CLI::Range(1, 10000))
        ->capture_default_str();
    launch->add_flag("--json", options->json, "JSON instead of the tables");
    launch
        ->add_option("--report", options->report_folder,
                     "also write bench.json and a chart of each table there")
        ->type_name("DIR");
    auto brokered = std::make_shared<BrokerBenchOptions>();
    CLI::App* broker = command->add_subcommand(
        "broker", "grants from `postern broker`, in-process, and the same sandbox without a device");
    broker->add_option("--device", brokered->device, "a device bound to vfio-pci that nobody has")
        ->type_name("BDF")
        ->required();
    broker->add_option("--profile", brokered->profile, "profile of the device")
        ->type_name("NAME|FILE")
        ->capture_default_str();
    broker->add_option("--rounds", brokered->rounds, "rounds, each with every side")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    broker
        ->add_option("--grants", brokered->grants, "grants of each side in one round, alone and all at once")
        ->check(CLI::Range(1, 10000))
        ->capture_default_str();
    broker->add_option("--jobs", brokered->jobs, "jobs of 100 ms of each side in one round")
        ->check(CLI::Range(0, 10000))
        ->capture_default_str();
    broker->add_flag("--json", options->json, "JSON instead of the tables");
    broker
        ->add_option("--report", options->report_folder,
                     "also write bench.json and a chart of each table there")
        ->type_name("DIR");
    auto pooled = std::make_shared<PoolBenchOptions>();
    CLI::App* pool = command->add_subcommand(
        "pool", "what a pool loses between jobs on the slices of a device, and in sandboxes without one");
    pool->add_option("--device", pooled->device,
                     "a device bound to vfio-pci that nobody has (default: only what needs none)")
        ->type_name("BDF");
    pool->add_option("--profile", pooled->profile, "profile of the device")
        ->type_name("NAME|FILE")
        ->capture_default_str();
    pool->add_option("--rounds", pooled->rounds, "rounds, each with both sides")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    pool->add_option("--jobs", pooled->jobs, "jobs of each side in one round")
        ->check(CLI::Range(1, 10000))
        ->capture_default_str();
    pool->add_option_function<std::string>(
            "--job",
            [pooled](const std::string& text) {
                const auto time = parse_duration(text);
                if (!time || time->count() == 0)
                    throw CLI::ValidationError("--job", time ? "0 is no time" : time.error().message);
                pooled->job = *time;
            },
            "how long a job sleeps (default: 100ms)")
        ->type_name("TIME");
    pool->add_flag("--json", options->json, "JSON instead of the tables");
    pool->add_option("--report", options->report_folder,
                     "also write bench.json and a chart of each table there")
        ->type_name("DIR");
    return [=](const CommandLine&) {
        if (broker->parsed()) {
            return run_rounds("bench broker", brokered->rounds, *options,
                              [&](const auto& told) { return measure_grants(*brokered, told); });
        }
        if (pool->parsed()) {
            return run_rounds("bench pool", pooled->rounds, *options,
                              [&](const auto& told) { return measure_pool(*pooled, told); });
        }
        return launch->parsed() ? run_launch_bench(*measured, *options) : run_bench(*options);
    };
}

}  // namespace postern
