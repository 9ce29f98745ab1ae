// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "launcher/job.h"

namespace postern {

/// The words of one line by the rules of sh(1) that need no shell: quotes, backslashes, a comment at the end.
/// What a shell would replace or act on (variables, patterns, pipes, redirections, assignments) is an error
/// unless it is quoted, so that a line never means something else here than there. Empty: nothing but a
/// comment. Pure.
[[nodiscard]] Result<std::vector<std::string>> split_command(std::string_view line);

/// `word` so that split_command() and a shell give it back.
[[nodiscard]] std::string quote_word(std::string_view word);
[[nodiscard]] std::string quote_command(const std::vector<std::string>& command);

/// One job a line. Errors name `source` and the line. No job at all is an error. Pure.
[[nodiscard]] Result<std::vector<Job>> parse_job_list(std::string_view text, std::string_view source);

/// Whether a command line is a list of jobs: it has the word ":::".
[[nodiscard]] bool is_job_list(const std::vector<std::string>& words);

/// The jobs of "CMD ARG… ::: VALUE…", as parallel(1) has them: one for each value, which takes the place of
/// each "{}" in the command, or goes to its end if it has none. Without a command each value is a line for
/// split_command(). Pure.
[[nodiscard]] Result<std::vector<Job>> jobs_of_arguments(const std::vector<std::string>& words);

}  // namespace postern
