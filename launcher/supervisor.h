// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/sandbox.h"

namespace postern {

/// Waits for any number of clients at once: passes the launcher's signals on to them, enforces their time
/// limits, collects their exits. SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGWINCH SIGCONT are blocked
/// in the calling thread from create() until destruction, so make it before the first client and before other
/// threads.
class Supervisor {
  public:
    /// Which client ended (the number that add() returned), and how.
    struct Ended {
        std::size_t client = 0;
        ClientExit exit;
    };

    static Result<Supervisor> create();
    Supervisor(Supervisor&&) noexcept;
    Supervisor& operator=(Supervisor&&) = delete;
    Supervisor(const Supervisor&) = delete;
    Supervisor& operator=(const Supervisor&) = delete;
    /// Kills what still runs, waits for it, and restores the signal mask. Signals that wait are dropped.
    ~Supervisor();

    /// Takes the client over; the number counts up from 0 and is never used again.
    std::size_t add(RunningClient client);
    [[nodiscard]] std::size_t running() const;
    /// The client with that number while it runs, else nullptr.
    [[nodiscard]] RunningClient* client(std::size_t number);

    /// Calls `ready` from wait_any() whenever `fd` (borrowed) is readable, e.g. a ring buffer with denials.
    /// One that has hung up is dropped.
    void watch(int fd, std::function<void()> ready);
    /// Before the fd or what `ready` refers to ends. One that is not watched is no error.
    void unwatch(int fd);

    /// Waits until a client ends. `running()` must not be 0. Error: poll(2) failed, which it does not.
    Result<Ended> wait_any();
    /// The same, for callers that have other things to look after, with or without clients: returns nullopt
    /// as soon as a signal has been forwarded, a watched fd was ready, or `most` is over.
    Result<std::optional<Ended>> wait_event(std::optional<std::chrono::milliseconds> most);

    /// Passes `signal` on to the clients, as if it had come from outside.
    void forward(int signal);

    /// Takes a forwarded signal that came while no client was there to have it; nullopt if none did. For
    /// callers with slow work before the first client: SIGINT, SIGTERM, SIGHUP or SIGQUIT then means give up.
    std::optional<int> take_signal();

    /// Signals forwarded so far that ask to end (SIGINT SIGTERM SIGHUP SIGQUIT): a pool starts no further job
    /// then.
    [[nodiscard]] bool asked_to_end() const { return end_signals_ > 0; }
    /// How many those were, and which came first (0: none).
    [[nodiscard]] unsigned end_signals() const { return end_signals_; }
    [[nodiscard]] int first_end_signal() const { return first_end_signal_; }

  private:
    struct Slot {
        std::size_t number;
        RunningClient client;
        bool timed_out = false;
    };
    struct Watch {
        int fd;
        std::function<void()> ready;
    };

    Supervisor() = default;
    void note(int signal);
    void forward_signals();
    int enforce_limits();

    UniqueFd signals_;
    sigset_t old_mask_ = {};
    bool owns_mask_ = false;
    unsigned end_signals_ = 0;
    int first_end_signal_ = 0;
    std::size_t next_ = 0;
    std::vector<Slot> slots_;
    std::vector<Watch> watches_;
};

}  // namespace postern
