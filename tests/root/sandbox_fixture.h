// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "broker-core/unique_fd.h"
#include "launcher/sandbox.h"
#include "launcher/supervisor.h"

namespace postern {

/// What came of one launch.
struct Outcome {
    int status = -1;
    ClientExit::Kind kind = ClientExit::Kind::Exited;
    std::string out;    ///< standard output and standard error of the client
    std::string error;  ///< the launch's, when it failed
};

/// Real sandboxes on this machine. Needs root, as the launcher's privileged side is what is tested.
class SandboxTest : public ::testing::Test {
  protected:
    void SetUp() override;
    void TearDown() override;

    /// The full default: all namespaces, host root, the default seccomp profile, uid 65534.
    static SandboxSpec full();
    /// `full()` with `sh -c script`.
    static SandboxSpec shell(const std::string& script);

    /// Runs to the end under a Supervisor.
    static Outcome run(const SandboxSpec& spec);
    static Outcome run_shell(const std::string& script) { return run(shell(script)); }

    /// A fresh folder, 0755, removed at the end; not below /tmp, which a sandbox covers.
    [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

  private:
    std::filesystem::path folder_;
};

/// The client's standard output and error for as long as it lives: fds 1 and 2 lead to a file.
class Captured {
  public:
    Captured();
    Captured(const Captured&) = delete;
    Captured& operator=(const Captured&) = delete;
    ~Captured();
    /// What was written so far.
    [[nodiscard]] std::string text() const;
    /// Gives fds 1 and 2 back.
    void restore();

  private:
    UniqueFd file_;
    UniqueFd old_out_;
    UniqueFd old_error_;
};

std::string read_text(const std::filesystem::path& path);
/// "Name:\tvalue" lines of /proc/PID/status and the like.
std::map<std::string, std::string> fields(const std::string& text);
/// pids whose NSpid chain or comm matches are looked for by the tests with this: all pids of the machine.
std::vector<pid_t> all_pids();
bool is_alive(pid_t pid);
/// Polls every millisecond; false after `seconds`.
bool eventually(const std::function<bool()>& condition, int seconds = 60);

}  // namespace postern
