// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>

#include "broker-core/file.h"
#include "launcher/cdi_state.h"
#include "launcher/commands.h"
#include "oci-hook/configured_slices.h"

namespace postern {
namespace {

/// So long nobody takes to write a file of the configuration.
constexpr std::chrono::milliseconds kStillWriting{100};

struct CdiOptions {
    std::string output;
    std::string config = kBrokerConfig;
    std::string broker = kBrokerSocket;
};

Status make_parent(const std::string& path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos || slash == 0) return {};
    const std::string folder = path.substr(0, slash);
    if (::mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST) return {};
    const int error = errno;
    return fail_errno(error, "cannot make {}", folder);
}

/// Runtimes look at it whenever a container starts: it is whole at any moment, and stays as it is where it is
/// right.
Status write_spec(const std::string& path, const std::string& text) {
    if (const auto before = read_file(path, kMaxCdiFile); before && *before == text) return {};
    POSTERN_TRY(make_parent(path));
    return replace_file(path, text);
}

/// CDI has no specification without devices: where there was one, none is what it becomes.
Status remove_spec(const std::string& path) {
    const auto before = read_file(path, kMaxCdiFile);
    if (!before) return {};
    const auto spec = parse_json(*before);
    if (!spec || !spec->is_object() || spec->value("kind", Json()) != kCdiKind)
        return fail("{}: is not of {}; remove it by hand", path, kCdiKind);
    if (::unlink(path.c_str()) == 0) return {};
    const int error = errno;
    return fail_errno(error, "cannot remove {}", path);
}

/// The text of the specification; empty: no device is configured.
Result<std::string> spec_of(const CdiOptions& options) {
    POSTERN_ASSIGN(const std::vector<NamedSlice> names, configured_slices(options.config));
    if (names.empty()) return std::string();
    HookPlace place = own_hook_place();
    place.broker = options.broker;
    place.config = options.config;
    return cdi_text(cdi_spec(names, place));
}

Status show(const CdiOptions& options) {
    POSTERN_ASSIGN(const std::string text, spec_of(options));
    if (text.empty()) return fail("{}: no device is configured (*.json)", options.config);
    fmt::print("{}", text);
    return {};
}

/// Until two looks in a row find the same, be it a mistake: systemd.path(5) does not see what changes while
/// the service runs that it has started for the change before, and somebody may still be writing.
Status generate(const CdiOptions& options) {
    if (options.output.empty()) return show(options);
    Result<std::string> text = spec_of(options);
    while (true) {
        if (text)
            POSTERN_TRY(text->empty() ? remove_spec(options.output) : write_spec(options.output, *text));
        else
            std::this_thread::sleep_for(kStillWriting);
        Result<std::string> now = spec_of(options);
        if (text ? now && *now == *text : !now && now.error().message == text.error().message) break;
        text = std::move(now);
    }
    if (!text) return propagate(std::move(text));
    return {};
}

}  // namespace

Command add_cdi_command(CLI::App& app) {
    auto options = std::make_shared<CdiOptions>();
    CLI::App* command =
        app.add_subcommand("cdi", "slices as devices of containers (Container Device Interface)");
    command->require_subcommand(1);
    CLI::App* generates = command->add_subcommand(
        "generate", "the specification for podman, with one device per slice, of the broker's configuration");
    generates
        ->add_option("-o,--output", options->output,
                     "write it there (/etc/cdi/postern.json), at once or not at all; a file that is right "
                     "stays as it is, "
                     "and without any device it is removed")
        ->type_name("FILE");
    generates->add_option("--config", options->config, "folder with a file for each device")
        ->type_name("DIR")
        ->capture_default_str();
    generates->add_option("--broker", options->broker, "the broker's socket, for the hooks")
        ->type_name("PATH")
        ->capture_default_str();
    return [options](const CommandLine&) {
        const auto generated = generate(*options);
        return generated ? 0 : report(generated.error(), kFailed);
    };
}

}  // namespace postern
