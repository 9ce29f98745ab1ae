// SPDX-License-Identifier: Apache-2.0
#include "launcher/supervisor.h"

#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>

namespace postern {
namespace {

constexpr int kForwardedSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT};

bool asks_to_end(int signal) {
    return signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT;
}

/// nohup(1) and shells' background jobs: what the launcher was started to ignore is not the client's to die
/// of either.
bool is_ignored(int signal) {
    struct sigaction action = {};
    return ::sigaction(signal, nullptr, &action) == 0 && (action.sa_flags & SA_SIGINFO) == 0 &&
           action.sa_handler == SIG_IGN;
}

}  // namespace

Result<Supervisor> Supervisor::create() {
    Supervisor supervisor;
    sigset_t mask;
    ::sigemptyset(&mask);
    for (const int signal : kForwardedSignals) {
        if (!is_ignored(signal)) ::sigaddset(&mask, signal);
    }
    supervisor.signals_.reset(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!supervisor.signals_) {
        const int errnum = errno;
        return fail_errno(errnum, "signalfd");
    }
    ::pthread_sigmask(SIG_BLOCK, &mask, &supervisor.old_mask_);
    supervisor.owns_mask_ = true;
    return supervisor;
}

Supervisor::Supervisor(Supervisor&& other) noexcept
    : signals_(std::move(other.signals_)),
      old_mask_(other.old_mask_),
      owns_mask_(std::exchange(other.owns_mask_, false)),
      end_signals_(other.end_signals_),
      first_end_signal_(other.first_end_signal_),
      next_(other.next_),
      slots_(std::move(other.slots_)),
      watches_(std::move(other.watches_)) {}

Supervisor::~Supervisor() {
    // All first, then one by one: they end side by side.
    for (Slot& slot : slots_) slot.client.kill();
    slots_.clear();
    if (!owns_mask_) return;
    // Unblocking would deliver what is pending, after everything that it was meant for has ended.
    while (take_signal()) {
    }
    ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

std::size_t Supervisor::add(RunningClient client) {
    slots_.push_back(Slot{next_, std::move(client)});
    return next_++;
}

std::size_t Supervisor::running() const {
    return slots_.size();
}

RunningClient* Supervisor::client(std::size_t number) {
    const auto slot =
        std::find_if(slots_.begin(), slots_.end(), [&](const Slot& each) { return each.number == number; });
    return slot == slots_.end() ? nullptr : &slot->client;
}

void Supervisor::watch(int fd, std::function<void()> ready) {
    watches_.push_back(Watch{fd, std::move(ready)});
}

void Supervisor::unwatch(int fd) {
    std::erase_if(watches_, [fd](const Watch& each) { return each.fd == fd; });
}

std::optional<int> Supervisor::take_signal() {
    signalfd_siginfo info = {};
    if (::read(signals_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return std::nullopt;
    const int signal = static_cast<int>(info.ssi_signo);
    note(signal);
    return signal;
}

void Supervisor::note(int signal) {
    if (!asks_to_end(signal)) return;
    if (end_signals_++ == 0) first_end_signal_ = signal;
}

void Supervisor::forward(int signal) {
    note(signal);
    // Error: it has just ended, which the next wait sees.
    for (Slot& slot : slots_) static_cast<void>(slot.client.send(signal));
}

void Supervisor::forward_signals() {
    signalfd_siginfo info = {};
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
        const int signal = static_cast<int>(info.ssi_signo);
        note(signal);
        for (Slot& slot : slots_) {
            // ^C at the terminal reaches a client in the launcher's session by itself; twice would be once
            // too often.
            if (info.ssi_code == SI_KERNEL && !slot.client.in_own_session()) continue;
            // Error: it has just ended, which the poll sees next.
            static_cast<void>(slot.client.send(signal));
        }
    }
}

/// Kills clients whose time is up. Returns the milliseconds until the next one's is, -1 for never.
int Supervisor::enforce_limits() {
    using std::chrono::milliseconds;
    const auto now = std::chrono::steady_clock::now();
    milliseconds next = milliseconds::max();
    for (Slot& slot : slots_) {
        if (!slot.client.time_limit() || slot.timed_out) continue;
        const auto left =
            std::chrono::ceil<milliseconds>(slot.client.started() + *slot.client.time_limit() - now);
        if (left <= milliseconds::zero()) {
            slot.client.kill();
            slot.timed_out = true;
        } else {
            next = std::min(next, left);
        }
    }
    if (next == milliseconds::max()) return -1;
    return static_cast<int>(std::min<milliseconds::rep>(next.count(), 1'000'000));
}

Result<Supervisor::Ended> Supervisor::wait_any() {
    while (true) {
        POSTERN_ASSIGN(const std::optional<Ended> ended, wait_event(std::nullopt));
        if (ended) return *ended;
    }
}

Result<std::optional<Supervisor::Ended>> Supervisor::wait_event(
    std::optional<std::chrono::milliseconds> most) {
    int timeout = enforce_limits();
    if (most) {
        const auto longest = static_cast<int>(std::clamp<std::int64_t>(most->count(), 0, 1'000'000));
        timeout = timeout < 0 ? longest : std::min(timeout, longest);
    }
    std::vector<pollfd> polled;
    for (const Slot& slot : slots_) polled.push_back({slot.client.pidfd(), POLLIN, 0});
    polled.push_back({signals_.get(), POLLIN, 0});
    for (const Watch& each : watches_) polled.push_back({each.fd, POLLIN, 0});
    if (::poll(polled.data(), polled.size(), timeout) < 0) {
        const int errnum = errno;
        if (errnum == EINTR) return std::nullopt;
        return fail_errno(errnum, "poll");
    }
    // Signals before ends: one that came first is still passed on to clients that live.
    if (polled[slots_.size()].revents != 0) forward_signals();
    for (std::size_t i = watches_.size(); i-- > 0;) {
        const short events = polled[slots_.size() + 1 + i].revents;
        if (events == 0) continue;
        if ((events & POLLIN) != 0) {
            watches_[i].ready();
        } else {
            // Hung up: it would be ready for ever, with nothing to read.
            watches_.erase(watches_.begin() + static_cast<std::ptrdiff_t>(i));
        }
    }
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (polled[i].revents == 0) continue;
        Ended ended{slots_[i].number, slots_[i].client.wait()};
        // A client that ended by itself in the moment of the kill has its own status.
        if (slots_[i].timed_out && slots_[i].client.was_killed(ended.exit))
            ended.exit = {ClientExit::Kind::TimeLimit, 0};
        slots_.erase(slots_.begin() + static_cast<std::ptrdiff_t>(i));
        return ended;
    }
    return std::nullopt;
}

}  // namespace postern
