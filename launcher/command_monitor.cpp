// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sys/signalfd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <optional>

#include "broker-core/boot_clock.h"
#include "broker-core/guard_event.h"
#include "broker-core/guard_listener.h"
#include "broker-core/guard_support.h"
#include "launcher/commands.h"
#include "launcher/guard_access.h"
#include "launcher/report.h"

namespace postern {
namespace {

/// How often is looked whether something was lost, or the pinned set replaced.
constexpr int kLookMilliseconds = 500;

/// Reads the signals that end the command, so that it can say its last words.
Result<UniqueFd> open_signals() {
    sigset_t mask;
    ::sigemptyset(&mask);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&mask, signal);
    UniqueFd signals(::signalfd(-1, &mask, SFD_CLOEXEC));
    if (!signals) {
        const int error = errno;
        return fail_errno(error, "signalfd");
    }
    ::sigprocmask(SIG_BLOCK, &mask, nullptr);
    return signals;
}

/// Prints refusals.
class Printer {
  public:
    explicit Printer(bool json) : json_(json) {}

    void show(const GuardPins& pins, const postern_event& event) {
        const postern_policy* policy = policy_of(pins, event);
        // A launcher proves the guard on the client's file before it hands it over; no other call is its own.
        if (policy != nullptr && policy->launcher == event.pid) return;
        const EventContext context{policy, realtime_ahead()};
        put(json_ ? event_to_json(event, context).dump() : describe_event(event, context));
    }

    void show_missing(const char* key, const char* words, uint64_t count) const {
        if (count == 0) return;
        put(json_ ? Json{{key, count}}.dump() : fmt::format("{} {}", count, words));
    }

  private:
    static void put(const std::string& line) {
        fmt::print("{}\n", line);
        (void)std::fflush(stdout);
    }

    /// Of the event's grant while it lives, and as it was then.
    const postern_policy* policy_of(const GuardPins& pins, const postern_event& event) {
        const std::string grant(event.grant, ::strnlen(event.grant, sizeof event.grant));
        if (grant.empty()) return nullptr;
        const std::pair<std::string, uint32_t> file(grant, event.file);
        if (!policies_.contains(file)) {
            policies_.clear();
            if (const auto files = pins.files()) {
                for (const auto& [key, policy] : *files)
                    policies_.emplace(std::pair(std::string(policy.grant), policy.file), policy);
            }
        }
        const auto found = policies_.find(file);
        return found == policies_.end() ? nullptr : &found->second;
    }

    bool json_;
    std::map<std::pair<std::string, uint32_t>, postern_policy> policies_;  ///< by grant and file
};

/// What a monitor hears with.
struct Ears {
    GuardPins pins;
    GuardListener listener;

    /// Loads the guard where it is not, without attaching it: so the first call that is refused is heard, and
    /// a machine without clients pays nothing for being watched.
    static Result<Ears> open() {
        POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
        POSTERN_ASSIGN(GuardUse use, GuardUse::begin());
        POSTERN_ASSIGN(const bool alone, use.is_only_one());
        POSTERN_ASSIGN(GuardPins pins, GuardPins::open(kBpffs, alone));
        use.end();
        POSTERN_TRY(GuardListener::sweep(pins));
        POSTERN_ASSIGN(GuardListener listener, GuardListener::open(pins, GuardListener::Who::Person, 0));
        return Ears{std::move(pins), std::move(listener)};
    }
};

/// Refusals that were counted after the last that was told of their file.
uint64_t untold(const GuardPins& pins) {
    uint64_t sum = 0;
    if (const auto files = pins.files()) {
        for (const auto& [key, policy] : *files) sum += policy.untold;
    }
    return sum;
}

Status listen(int signals, Printer& printer, std::optional<Ears> ears) {
    uint64_t lost_before = 0;
    const auto tell_lost = [&]() -> Status {
        POSTERN_ASSIGN(const uint64_t lost, ears->listener.lost());
        printer.show_missing("lost", "refused calls are lost: they came faster than they were read",
                             lost - lost_before);
        lost_before = lost;
        return {};
    };
    while (true) {
        pollfd polled[] = {{signals, POLLIN, 0}, {ears->listener.fd(), POLLIN, 0}};
        const int ready = ::poll(polled, 2, kLookMilliseconds);
        if (ready < 0 && errno != EINTR) {
            const int error = errno;
            return fail_errno(error, "poll");
        }
        const bool asked_to_end = ready > 0 && polled[0].revents != 0;
        POSTERN_TRY(
            ears->listener.read([&](const postern_event& event) { printer.show(ears->pins, event); }));
        POSTERN_TRY(tell_lost());
        if (asked_to_end) {
            printer.show_missing("untold", "more refused calls were only counted", untold(ears->pins));
            return {};
        }
        if (ready == 0 && !ears->pins.is_current()) {
            // Unloaded, or replaced by another build's: what comes now comes from there.
            POSTERN_ASSIGN(Ears fresh, Ears::open());
            ears.emplace(std::move(fresh));
            lost_before = 0;
        }
    }
}

Status monitor(bool json) {
    POSTERN_TRY(need_root());
    POSTERN_TRY(guard_supported());
    POSTERN_ASSIGN(const UniqueFd signals, open_signals());
    POSTERN_ASSIGN(Ears ears, Ears::open());
    tell("postern: listening{}\n",
         ears.pins.any_attached() ? "" : "; no client has a guarded device now, waiting for one");
    Printer printer(json);
    return listen(signals.get(), printer, std::move(ears));
}

}  // namespace

Command add_monitor_command(CLI::App& app) {
    auto json = std::make_shared<bool>(false);
    CLI::App* command =
        app.add_subcommand("monitor", "show the calls that the guard refuses, as they happen");
    command->add_flag("--json", *json, "one JSON object a line");
    return [json](const CommandLine&) {
        const Status ended = monitor(*json);
        return ended ? 0 : report(ended.error(), kFailed);
    };
}

}  // namespace postern
