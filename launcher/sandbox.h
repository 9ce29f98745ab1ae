// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <tl/expected.hpp>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/client_identity.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// Why no client runs, and what the launcher's exit status has to be: 125 the sandbox could not be made,
/// 126 the command was found but cannot be run, 127 it was not found.
struct LaunchError {
    Error error;
    int exit_status = 125;
};

struct ExitRecord;
struct SandboxLaunch;

/// How a client ended.
struct ClientExit {
    enum class Kind {
        Exited,     ///< value: its own status
        Signaled,   ///< value: the signal
        TimeLimit,  ///< value: unused
        CpuLimit,   ///< value: SIGXCPU, or SIGKILL of one that went on
        Lost,       ///< killed from outside together with its init (value: SIGKILL)
    };
    Kind kind = Kind::Exited;
    int value = 0;

    /// The exit status of `postern run`: the client's own, 128 + signal, or 124.
    [[nodiscard]] int status() const {
        switch (kind) {
            case Kind::Exited:
                return value;
            case Kind::TimeLimit:
            case Kind::CpuLimit:
                return 124;
            case Kind::Signaled:
            case Kind::Lost:
                break;
        }
        return 128 + value;
    }
};

/// A client that has been exec'ed. Destroying it kills the client and waits until everything in its pid
/// namespace is gone. (Without a pid namespace: the client, and everything in its cgroup if it has one.)
class RunningClient {
  public:
    RunningClient(RunningClient&&) noexcept = default;
    RunningClient& operator=(RunningClient&& other) noexcept;
    RunningClient(const RunningClient&) = delete;
    RunningClient& operator=(const RunningClient&) = delete;
    ~RunningClient();

    struct Limits {
        std::optional<std::chrono::milliseconds> time;
        std::optional<std::chrono::seconds> cpu;
        bool own_session = true;
    };
    /// One that another launcher, this process's child `pid`, has started just now, and whose end that tells
    /// through `status_pipe` as init does. To this process that launcher stands for init: its end is the
    /// client's.
    [[nodiscard]] static RunningClient behind(pid_t pid, UniqueFd pidfd, UniqueFd status_pipe,
                                              const ClientIdentity& identity, const Limits& limits);

    /// pid, seen from the launcher, of the sandbox's init: the client's parent, and with a pid namespace its
    /// pid 1.
    [[nodiscard]] pid_t init_pid() const { return init_pid_; }
    /// pidfd of init, borrowed: readable once init and with it everything in the pid namespace is gone.
    [[nodiscard]] int pidfd() const { return pidfd_.get(); }
    /// pid of the client itself, seen from the launcher. Error: it is gone already.
    [[nodiscard]] Result<pid_t> client_pid() const;
    /// Who the client said it was before exec; also of one that is gone.
    [[nodiscard]] const ClientIdentity& identity() const { return identity_; }
    /// When exec succeeded, and the limit counted from there.
    [[nodiscard]] std::chrono::steady_clock::time_point started() const { return started_; }
    [[nodiscard]] std::optional<std::chrono::milliseconds> time_limit() const { return time_limit_; }
    [[nodiscard]] bool in_own_session() const { return own_session_; }
    /// Whether `exit` is what kill() makes of it.
    [[nodiscard]] bool was_killed(const ClientExit& exit) const;

    /// Sends `signal` to the client (init passes it on). Error: ESRCH, it is gone.
    Status send(int signal);
    /// Kills everything in the sandbox, now. Idempotent; wait() still has to be called or the destructor run.
    void kill();
    /// Waits until everything is gone and says how the client ended. Call once.
    ClientExit wait();

  private:
    friend struct SandboxLaunch;
    friend class PreparedSandbox;
    friend tl::expected<void, LaunchError> begin_launch(SandboxLaunch& launch);
    friend tl::expected<RunningClient, LaunchError> end_launch(SandboxLaunch& launch,
                                                               const std::string& command);
    RunningClient() = default;
    /// False: the client never came to tell.
    bool read_identity();
    [[nodiscard]] ClientExit to_exit(const ExitRecord& record) const;

    pid_t init_pid_ = -1;
    UniqueFd pidfd_;
    UniqueFd status_pipe_;
    ClientIdentity identity_;
    std::optional<ClientExit> exit_;  ///< told already
    UniqueFd cgroup_;                 ///< only without a pid namespace: what kill() has instead of it
    std::chrono::steady_clock::time_point started_;
    std::optional<std::chrono::milliseconds> time_limit_;
    std::optional<std::chrono::seconds> cpu_limit_;
    bool own_session_ = true;
    bool is_init_ = false;  ///< the client is pid 1 itself
};

/// Makes the sandbox and execs the client in it. Returns after exec has succeeded, or failed with nothing
/// left behind. The client dies with the calling *thread* (PR_SET_PDEATHSIG): call from one that outlives it,
/// such as the main thread. May be called several times from one process for several clients at once.
///
/// Sources: clone(2), user_namespaces(7), pid_namespaces(7), pivot_root(2), mount_setattr(2), openat2(2),
/// seccomp(2).
tl::expected<RunningClient, LaunchError> start_sandbox(const SandboxSpec& spec);

}  // namespace postern
