// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_bench.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>

#include "broker-core/unique_fd.h"
#include "launcher/launch_root.h"
#include "launcher/measured_launcher.h"

extern char** environ;

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kFilterFd = 9;
const std::vector<std::string> kTrue{"/bin/true"};
const std::vector<std::string> kSleep{"/bin/sleep", "600"};

double milliseconds_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// What a spawned process gets instead of our fds 0, 1 and 2, and its filter.
class SpawnFiles {
  public:
    SpawnFiles(const std::string& filter, int output) {
        ::posix_spawn_file_actions_init(&actions_);
        ::posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        ::posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO);
        ::posix_spawn_file_actions_adddup2(&actions_, output, STDERR_FILENO);
        if (!filter.empty())
            ::posix_spawn_file_actions_addopen(&actions_, kFilterFd, filter.c_str(), O_RDONLY, 0);
    }
    SpawnFiles(const SpawnFiles&) = delete;
    SpawnFiles& operator=(const SpawnFiles&) = delete;
    ~SpawnFiles() { ::posix_spawn_file_actions_destroy(&actions_); }
    [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

  private:
    posix_spawn_file_actions_t actions_ = {};
};

/// One launcher's launches.
class Runner {
  public:
    Runner(MeasuredLauncher launcher, int output)
        : launcher_(std::move(launcher)), files_(launcher_.filter, output) {}

    [[nodiscard]] const MeasuredLauncher& launcher() const { return launcher_; }

    Result<pid_t> spawn(const std::vector<std::string>& command) {
        std::vector<std::string> words = launcher_.words;
        if (launcher_.is_oci) {
            words.push_back(fmt::format("postern-bench-{}-{}", ::getpid(), count_++));
        } else {
            words.insert(words.end(), command.begin(), command.end());
        }
        std::vector<char*> argv;
        argv.reserve(words.size() + 1);
        for (std::string& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        pid_t pid = -1;
        const int error = ::posix_spawn(&pid, argv[0], files_.get(), nullptr, argv.data(), environ);
        if (error != 0) return fail_errno(error, "{}", words[0]);
        return pid;
    }

    /// Milliseconds of one launch, from spawn to the end of all that it began.
    Result<double> time_one() {
        const auto begin = Clock::now();
        POSTERN_ASSIGN(const pid_t pid, spawn(kTrue));
        POSTERN_TRY(await(pid));
        return milliseconds_since(begin);
    }

    /// Launches per second of `count` launches, of which `at_once` run side by side.
    Result<double> rate(unsigned count, unsigned at_once) {
        const auto begin = Clock::now();
        unsigned begun = 0;
        unsigned running = 0;
        while (begun < count || running > 0) {
            for (; begun < count && running < at_once; ++begun, ++running) POSTERN_TRY(started(spawn(kTrue)));
            POSTERN_TRY(await(-1));
            --running;
        }
        return 1000 * count / milliseconds_since(begin);
    }

  private:
    static Status started(Result<pid_t> pid) {
        if (!pid) return Failure(std::move(pid.error()));
        return {};
    }

    Status await(pid_t pid) {
        int status = 0;
        while (::waitpid(pid, &status, 0) < 0) {
            const int error = errno;
            if (error != EINTR) return fail_errno(error, "waitpid");
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
        return fail("{} ended with {} {}", launcher_.name, WIFEXITED(status) ? "status" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    }

    MeasuredLauncher launcher_;
    SpawnFiles files_;
    unsigned count_ = 0;
};

std::vector<pid_t> children_of(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{0}/task/{0}/children", pid));
    std::vector<pid_t> children;
    for (pid_t child = 0; file >> child;) children.push_back(child);
    return children;
}

std::string name_of(pid_t pid) {
    std::string name;
    std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)), name);
    return name;
}

/// Whether sleep(1) is what runs below `pid`, or is it.
bool client_sleeps(pid_t pid) {
    if (name_of(pid) == "sleep") return true;
    for (const pid_t child : children_of(pid)) {
        if (client_sleeps(child)) return true;
    }
    return false;
}

struct Memory {
    double alone = 0;  ///< private to the launcher's first process
    double whole =
        0;  ///< proportional share of all processes of the launcher's, an init in the sandbox included
};

/// In MiB, of the lines of smaps_rollup that begin with one of `keys`.
double rolled_up(pid_t pid, std::initializer_list<std::string_view> keys) {
    std::ifstream rollup(fmt::format("/proc/{}/smaps_rollup", pid));
    double kilobytes = 0;
    for (std::string line; std::getline(rollup, line);) {
        std::istringstream words(line);
        std::string key;
        double value = 0;
        if (words >> key >> value && std::find(keys.begin(), keys.end(), key) != keys.end())
            kilobytes += value;
    }
    return kilobytes / 1024;
}

/// All processes of a launch but the client.
double whole_memory(pid_t pid) {
    if (name_of(pid) == "sleep") return 0;
    double memory = rolled_up(pid, {"Pss:"});
    for (const pid_t child : children_of(pid)) memory += whole_memory(child);
    return memory;
}

/// What the launcher takes while its client sleeps.
Result<Memory> waiting_memory(Runner& runner) {
    POSTERN_ASSIGN(const pid_t pid, runner.spawn(kSleep));
    const auto begin = Clock::now();
    bool sleeps = false;
    // A moment more, in which the launcher comes to its wait.
    while (!(sleeps = client_sleeps(pid)) && milliseconds_since(begin) < 10000)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const Memory memory{rolled_up(pid, {"Private_Clean:", "Private_Dirty:"}), whole_memory(pid)};
    std::vector<pid_t> inner = children_of(pid);
    for (const pid_t child : inner) ::kill(child, SIGKILL);
    ::kill(pid, SIGTERM);
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (!sleeps || memory.whole <= 0) return fail("{}: no client came to sleep", runner.launcher().name);
    return memory;
}

std::string last_line(int file) {
    std::string text(4096, '\0');
    const off_t size = ::lseek(file, 0, SEEK_END);
    const ssize_t got = ::pread(file, text.data(), text.size(), std::max<off_t>(0, size - 4096));
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text.substr(text.rfind('\n') + 1);
}

BenchResult figure(const char* name, const std::string& title, const char* unit, int decimals,
                   const std::vector<std::unique_ptr<Runner>>& runners) {
    BenchResult result;
    result.name = name;
    result.title = title;
    result.unit = unit;
    result.decimals = decimals;
    for (const auto& runner : runners)
        result.sides.push_back({runner->launcher().name, runner->launcher().label, {}});
    return result;
}

/// Those that make the sandbox; the others are said why not.
Result<std::vector<std::unique_ptr<Runner>>> runners_of(const LaunchRoot& root, int output,
                                                        std::vector<std::string>& left_out) {
    POSTERN_ASSIGN(const auto launchers, find_launchers(root));
    std::vector<std::unique_ptr<Runner>> runners;
    for (const MeasuredLauncher& launcher : launchers) {
        auto runner = std::make_unique<Runner>(launcher, output);
        if (auto tried = runner->time_one(); !tried) {
            const std::string why = fmt::format("{}: {}", tried.error().message, last_line(output));
            if (launcher.name == "postern" || launcher.name == "floor") return fail("{}", why);
            left_out.push_back(why);
            continue;
        }
        runners.push_back(std::move(runner));
    }
    return runners;
}

}  // namespace

Result<LaunchBenchResult> measure_launches(const LaunchBenchOptions& options,
                                           const std::function<Status(unsigned)>& told) {
    POSTERN_ASSIGN(const LaunchRoot root, LaunchRoot::create());
    POSTERN_TRY(root.write_bundle(kTrue));
    const UniqueFd output(::memfd_create("postern-bench", MFD_CLOEXEC));
    if (!output) {
        const int error = errno;
        return fail_errno(error, "memfd_create");
    }
    LaunchBenchResult result;
    POSTERN_ASSIGN(const auto runners, runners_of(root, output.get(), result.left_out));
    BenchResult time =
        figure("time", "One launch of a full sandbox of /bin/true", "milliseconds", 2, runners);
    BenchResult one = figure("rate-1", "Launches, one in flight", "launches per second", 0, runners);
    BenchResult two = figure("rate-2", "Launches, two in flight", "launches per second", 0, runners);
    BenchResult alone = figure("memory", "The launcher's first process while its client sleeps",
                               "MiB of private memory", 2, runners);
    BenchResult whole = figure("memory-whole", "All of the launcher's processes while its client sleeps",
                               "MiB, shared pages in proportion", 2, runners);
    for (unsigned round = 0; round < options.rounds; ++round) {
        for (size_t i = 0; i < runners.size(); ++i) {
            // Each round begins with another one, so that none is always first.
            const size_t side = (i + round) % runners.size();
            std::vector<double> times;
            const auto begin = Clock::now();
            for (unsigned launch = 0; launch < options.launches; ++launch) {
                POSTERN_ASSIGN(const double milliseconds, runners[side]->time_one());
                times.push_back(milliseconds);
            }
            one.sides[side].values.push_back(1000 * options.launches / milliseconds_since(begin));
            time.sides[side].values.push_back(median(std::move(times)));
            POSTERN_ASSIGN(const double rate, runners[side]->rate(2 * options.launches, 2));
            two.sides[side].values.push_back(rate);
        }
        POSTERN_TRY(told(round + 1));
    }
    POSTERN_TRY(root.write_bundle(kSleep));
    for (size_t side = 0; side < runners.size(); ++side) {
        POSTERN_ASSIGN(const Memory memory, waiting_memory(*runners[side]));
        alone.sides[side].values.push_back(memory.alone);
        whole.sides[side].values.push_back(memory.whole);
    }
    result.figures = {std::move(time), std::move(one), std::move(two), std::move(alone), std::move(whole)};
    return result;
}

}  // namespace postern
