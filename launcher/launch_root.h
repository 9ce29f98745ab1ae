// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <string>
#include <vector>

#include "broker-core/result.h"
#include "launcher/seccomp_profile.h"

namespace postern {

/// What the launchers that are measured are given alike: a small root with true(1), sleep(1) and what those
/// load, the same seccomp filter in each form that one of them reads, an OCI bundle. A folder that is removed
/// at the end.
class LaunchRoot {
  public:
    [[nodiscard]] static Result<LaunchRoot> create();
    LaunchRoot(LaunchRoot&& other) noexcept : folder_(std::move(other.folder_)) { other.folder_.clear(); }
    LaunchRoot& operator=(LaunchRoot&&) = delete;
    LaunchRoot(const LaunchRoot&) = delete;
    LaunchRoot& operator=(const LaunchRoot&) = delete;
    ~LaunchRoot();

    [[nodiscard]] std::string root() const { return bundle() + "/rootfs"; }
    /// Of an OCI runtime; its config.json runs the command that write_bundle() was given.
    [[nodiscard]] std::string bundle() const { return folder_ + "/bundle"; }
    /// Where an OCI runtime keeps what it knows of containers.
    [[nodiscard]] std::string state() const { return folder_ + "/state"; }
    /// The program for seccomp(2), as bytes.
    [[nodiscard]] std::string filter() const { return folder_ + "/filter.bpf"; }
    /// The same, as libseccomp makes it: what the users of launchers have that are given such a program.
    [[nodiscard]] std::string library_filter() const { return folder_ + "/libseccomp.bpf"; }
    /// As a kafel policy, which nsjail reads.
    [[nodiscard]] std::string kafel() const { return folder_ + "/filter.kafel"; }

    [[nodiscard]] Status write_bundle(const std::vector<std::string>& command) const;

  private:
    explicit LaunchRoot(std::string folder) : folder_(std::move(folder)) {}
    [[nodiscard]] Status fill();

    std::string folder_;
    SeccompProfile profile_;
};

}  // namespace postern
