// SPDX-License-Identifier: Apache-2.0
// bin/postern: launches that were compiled before, and bubblewrap's command line. Small, so that it starts
// fast; for everything else it becomes libexec/postern/postern-full.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/file.h"
#include "launcher/command_bwrap.h"
#include "launcher/compiled_run.h"
#include "launcher/launch_key.h"
#include "launcher/report.h"
#include "launcher/standard_fds.h"

namespace postern {
namespace {

std::string_view file_name(std::string_view path) {
    return path.substr(path.rfind('/') + 1);
}

/// A link to postern that is called bwrap is one; so is what runs as /proc/self/exe of such a program, if it
/// is a hard link.
bool is_called_bwrap(std::string_view program) {
    return file_name(program) == "bwrap" ||
           (program == "/proc/self/exe" && file_name(program_file()) == "bwrap");
}

/// Returns only if it cannot.
int become_full(char** argv) {
    const std::string program = program_prefix() + "/libexec/postern/postern-full";
    ::execv(program.c_str(), argv);
    const int error = errno;
    return report(Error{fmt::format("{}: {}; that program does everything but launches that are compiled "
                                    "already: install the whole of postern, bin/ and libexec/ beside each "
                                    "other",
                                    program, errno_text(error)),
                        error},
                  kLaunchFailed);
}

int main_with_arguments(const std::string& program, const std::vector<std::string>& words, char** argv) {
    if (is_called_bwrap(program)) return run_bwrap(program, words);
    if (!words.empty() && words.front() == "bwrap")
        return run_bwrap(kBwrapCommand, {words.begin() + 1, words.end()});
    std::optional<int> status;
    if (const auto run = launch_file_run(words)) {
        status = run_launch_file(*run);
    } else if (const auto build = build_identity()) {
        if (const auto key = launch_key(words, *build)) status = run_kept(*key);
    }
    if (!status) return become_full(argv);
    // Nothing is left that ends in order: the kernel takes the memory faster than destructors do.
    (void)std::fflush(nullptr);
    ::_exit(*status);
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    postern::hold_standard_fds();
    return postern::main_with_arguments(argc > 0 ? argv[0] : "postern",
                                        {argv + std::min(argc, 1), argv + argc}, argv);
}
