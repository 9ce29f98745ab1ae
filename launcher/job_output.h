// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/job.h"

namespace postern {

/// "007-client.log", and "007-client.2.log" of the second attempt: the job's number and the name of its
/// program without what a file's name should not have. Pure.
[[nodiscard]] std::string log_name(const Job& job, unsigned attempt);

/// What a job says on stdout and stderr, in one file: a log, or one without a name that is gone with this.
class JobOutput {
  public:
    /// A new file `path` in the place of what it is now.
    [[nodiscard]] static Result<JobOutput> in_file(const std::string& path);
    /// In TMPDIR or /tmp.
    [[nodiscard]] static Result<JobOutput> unnamed();

    /// stdout and stderr of this process, and of what it starts meanwhile, are this file.
    class Redirection {
      public:
        Redirection(Redirection&& other) noexcept = default;
        Redirection& operator=(Redirection&&) = delete;
        Redirection(const Redirection&) = delete;
        Redirection& operator=(const Redirection&) = delete;
        ~Redirection();

      private:
        friend class JobOutput;
        Redirection() = default;
        UniqueFd out_;
        UniqueFd err_;
    };
    [[nodiscard]] Result<Redirection> redirect() const;

    [[nodiscard]] Result<std::uint64_t> size() const;
    /// The last `most` bytes.
    [[nodiscard]] Result<std::string> tail(std::uint64_t most) const;
    /// Writes all of it to `fd` (borrowed), and a newline if it does not end with one. The file is not to
    /// grow meanwhile. A reader who is gone is no error.
    [[nodiscard]] Status copy_to(int fd) const;

  private:
    JobOutput() = default;
    UniqueFd file_;    ///< to read from
    UniqueFd append_;  ///< the client's
};

}  // namespace postern
