// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <tl/expected.hpp>

#include "launcher/sandbox.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// A sandbox in which nothing is left to be done but to become its client, which waits for its command: made
/// while there is time, for a client that has to begin at once. Destroying it ends it, with all that was
/// made.
class PreparedSandbox {
  public:
    /// Whether a sandbox of `spec` can wait: not where its making takes a part of the command, or may itself
    /// last as long as somebody else wants.
    [[nodiscard]] static bool is_possible(const SandboxSpec& spec);

    /// Makes one of `spec`, whose `argv`, `env` and `time_limit` do not matter. Its fds (spec.fds among them)
    /// are copied now and may be closed then. The rest of it goes on in the sandbox by itself; what fails
    /// there is start()'s to tell. As with start_sandbox(), what is made dies with the calling thread.
    [[nodiscard]] static tl::expected<PreparedSandbox, LaunchError> make(SandboxSpec spec);

    PreparedSandbox(PreparedSandbox&&) noexcept;
    PreparedSandbox& operator=(PreparedSandbox&&) = delete;
    PreparedSandbox(const PreparedSandbox&) = delete;
    PreparedSandbox& operator=(const PreparedSandbox&) = delete;
    ~PreparedSandbox();

    /// Starts the client of `spec`, which is the one that this was made of with a command, with stdout and
    /// stderr as they are now. nullopt: this one is of no use (it has ended, or has no room for so long a
    /// command); nothing has been begun then. Once.
    [[nodiscard]] std::optional<tl::expected<RunningClient, LaunchError>> start(const SandboxSpec& spec);

  private:
    struct Waiting;
    explicit PreparedSandbox(std::unique_ptr<Waiting> waiting);
    std::unique_ptr<Waiting> waiting_;
};

}  // namespace postern
