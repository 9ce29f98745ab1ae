// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <string>
#include <string_view>
#include <vector>

#include "oci-hook/hook_commands.h"
#include "oci-hook/hook_report.h"

namespace postern {
namespace {

struct HookCommand {
    std::string_view name;
    int (*run)(const std::vector<std::string>& words);
    std::string_view about;
};

constexpr HookCommand kCommands[] = {
    {"createRuntime", run_create_runtime,
     "--slice NAME: gives the container on stdin a slice (createRuntime hook)"},
    {"poststop", run_poststop, "--slice NAME: of the container on stdin nothing is left (poststop hook)"},
    {"enter", run_enter,
     "--grant ID: the container on stdin has this grant (createRuntime hook of postern-crun)"},
    {"leave", run_leave, "--grant ID: waits until it is given back (poststop hook of postern-crun)"},
    {"precreate", run_precreate, "edits the config.json on stdin, for podman's hooks dir"},
};

void print_help() {
    fmt::print(
        "usage: postern-oci-hook COMMAND [--slice NAME] [--broker PATH] [--config DIR]\n\n"
        "The hooks by which containers get slices of devices; `postern cdi generate` makes the specification "
        "that\n"
        "names them.\n\n");
    for (const HookCommand& each : kCommands) fmt::print("  {:<14} {}\n", each.name, each.about);
}

/// A runtime that writes the container's state must not be left with a broken pipe, whatever was wrong.
void read_what_is_left() {
    struct stat found {};
    if (::fstat(STDIN_FILENO, &found) != 0 || !(S_ISFIFO(found.st_mode) || S_ISSOCK(found.st_mode))) return;
    std::array<char, 4096> part{};
    while (true) {
        const ssize_t got = ::read(STDIN_FILENO, part.data(), part.size());
        if (got == 0 || (got < 0 && errno != EINTR)) return;
    }
}

int main_with_words(std::vector<std::string> words) {
    if (words.size() == 1 && (words[0] == "--help" || words[0] == "-h")) {
        print_help();
        return 0;
    }
    if (words.size() == 1 && words[0] == "--version") {
        fmt::print("postern-oci-hook {}\n", POSTERN_VERSION);
        return 0;
    }
    const std::string name = words.empty() ? "" : words[0];
    for (const HookCommand& each : kCommands) {
        if (name == each.name) return each.run({words.begin() + 1, words.end()});
    }
    return report_hook_error(
        {HookStatus::Usage,
         {fmt::format("unknown command \"{}\"; see `postern-oci-hook --help`", one_line(name)), 0}});
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    // What reads our words may be gone: that must not end the hook before it has undone what it did.
    std::signal(SIGPIPE, SIG_IGN);
    const int status = postern::main_with_words({argv + (argc > 0 ? 1 : 0), argv + argc});
    if (status != 0) postern::read_what_is_left();
    return status;
}
