// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <string>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/on_demand.h"
#include "broker-core/passed_fds.h"
#include "broker-core/user_namespace.h"
#include "oci-hook/cdi_spec.h"
#include "oci-hook/configured_slices.h"
#include "oci-hook/container_config.h"
#include "oci-hook/container_state.h"
#include "oci-hook/crun_command_line.h"
#include "oci-hook/crun_errors.h"
#include "oci-hook/find_crun.h"
#include "oci-hook/passed_on_fds.h"
#include "oci-hook/slice_request.h"
#include "oci-hook/taken_slice.h"

namespace postern {
namespace {

constexpr size_t kMaxManifest = 1 << 20;
constexpr size_t kMaxListenPid = 4 << 20;

/// What crun is started with.
struct CrunStart {
    std::string program;
    std::vector<std::string> words;
};

/// The container's configuration; nullopt: it asks for no slice, or is crun's to refuse.
Result<std::optional<Json>> read_config(const std::string& path) {
    const auto text = read_file(path, kMaxContainerJson);
    if (!text) return std::optional<Json>();
    // Not parse_json(): crun takes what that refuses.
    Json config = Json::parse(*text, nullptr, false);
    if (config.is_object()) return config;
    if (text->find(kSliceAnnotation) == std::string::npos && text->find(kHookProgram) == std::string::npos)
        return std::optional<Json>();
    return fail("{}: is no JSON object, and seems to ask for a slice", path);
}

/// A command line that is not understood is crun's to judge, unless a slice may be meant by it.
Status check_unknown(const std::vector<std::string>& words, const Error& why) {
    for (const std::string& path : possible_configs(words)) {
        const auto config = read_config(path);
        const auto request = config && *config ? find_slice_request(**config)
                                               : Result<std::optional<SliceRequest>>(std::nullopt);
        if (config && request && !*request) continue;
        return fail(
            "{}; and {} asks for a slice, whose container postern-crun makes only if it knows all options",
            why.message, path);
    }
    return {};
}

/// What crun adds to --preserve-fds (its source, create.c and run.c).
Result<unsigned> listen_fds() {
    const char* text = std::getenv("LISTEN_FDS");
    if (text == nullptr) return 0U;
    unsigned count = 0;
    const std::string_view number = text;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
    if (error != std::errc() || end != number.data() + number.size() || count > 4096)
        return fail("LISTEN_FDS={}: is not a number of fds", one_line(number));
    return count;
}

/// How many fds from 3 on are the caller's. crun adds both numbers. podman makes --preserve-fds of
/// LISTEN_FDS, and since 4.8 passes that on as well: where so many are not there, they are the same ones.
Result<unsigned> callers_fds(unsigned preserved) {
    POSTERN_ASSIGN(const unsigned listening, listen_fds());
    if (preserved == 0 || listening == 0 || are_open(preserved + listening)) return preserved + listening;
    return std::max(preserved, listening);
}

/// A copy, for it is executed inside the container: who finds it there (/proc/PID/exe) must not have a way to
/// the machine's file.
Result<UniqueFd> copy_of_program(const std::string& path) {
    POSTERN_ASSIGN(const std::string program, read_file(path, kMaxListenPid));
    return sealed_memfd("postern-listen-pid", program, MemfdUse::Program);
}

Result<std::string> hook_program() {
    std::string path = own_hook_place().program;
    if (::access(path.c_str(), X_OK) == 0) return path;
    const int error = errno;
    return fail_errno(error, "{}, which has postern-crun's hooks", path);
}

/// All that is refused is, before anything is asked for.
Result<CrunStart> with_slice(CrunStart crun, const CrunCommandLine& line, Json config,
                             const SliceRequest& request) {
    POSTERN_TRY(refuse_root_of_a_namespace());
    POSTERN_ASSIGN(const std::vector<NamedSlice> slices, configured_slices(request.config));
    POSTERN_ASSIGN(const NamedSlice slice, find_slice(slices, request.name));
    POSTERN_TRY(check_who_asks(request, slice));
    POSTERN_ASSIGN(const unsigned callers, callers_fds(line.preserve_fds));
    ContainerEdit edit;
    edit.broker = request.broker;
    edit.config = request.config;
    POSTERN_ASSIGN(edit.hook_program, hook_program());
    UniqueFd listen_program;
    if (!has_own_pid_namespace(config)) {
        POSTERN_ASSIGN(listen_program,
                       copy_of_program(fmt::format("{}/libexec/postern/listen-pid", program_prefix())));
    }
    POSTERN_TRY(pass_on_fds(callers, {}));

    POSTERN_ASSIGN(UniqueFd broker, need_broker(request.broker, request.config));
    auto taken = take_slice(request.broker, slice);
    if (!taken) return Failure(std::move(taken.error().error));
    BrokeredGrant& grant = *taken;
    std::vector<std::string> names;
    names.reserve(grant.fds.size());
    for (const NamedFd& each : grant.fds) names.push_back(each.name);
    if (names.empty() || names[0] != "manifest") return fail("the broker's grant has no manifest");
    const char* own_names = std::getenv("LISTEN_FDNAMES");
    POSTERN_ASSIGN(
        edit.names,
        caller_names(callers,
                     variable_of(config, "LISTEN_FDNAMES").value_or(own_names != nullptr ? own_names : ""),
                     names));
    if (callers != 0) {
        POSTERN_ASSIGN(const std::string manifest, read_to_end(grant.fds[0].fd.get(), kMaxManifest));
        POSTERN_ASSIGN(const std::string numbered, renumbered_manifest(manifest, names, kFirstFd + callers));
        POSTERN_ASSIGN(grant.fds[0].fd, sealed_memfd("postern-manifest", numbered));
    }
    edit.grant = grant.id;
    edit.names.insert(edit.names.end(), names.begin(), names.end());
    auto preserved = static_cast<unsigned>(edit.names.size());
    if (listen_program) edit.listen_pid = kFirstFd + preserved++;
    remove_slice_edits(config);
    POSTERN_TRY(edit_container(config, edit));

    std::vector<UniqueFd> fds;
    for (NamedFd& each : grant.fds) fds.push_back(std::move(each.fd));
    if (listen_program) fds.push_back(std::move(listen_program));
    // Behind what is preserved: crun reads it, keeps a copy of its own, and lets no container have it.
    POSTERN_ASSIGN(UniqueFd config_file, sealed_memfd("postern-config", config.dump()));
    fds.push_back(std::move(config_file));
    // Its number may be one that is taken by force now. A broker on demand stays until the container is made.
    broker.reset();
    POSTERN_TRY(pass_on_fds(callers, std::move(fds)));
    crun.words = with_grant(std::move(crun.words), line, preserved,
                            fmt::format("/proc/self/fd/{}", kFirstFd + preserved));
    // They are counted already.
    for (const char* name : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) (void)::unsetenv(name);
    return crun;
}

Result<CrunStart> prepare(CrunStart crun, const CrunReading& reading) {
    const CrunCommandLine& line = reading.line;
    if (reading.asks_for_help) return crun;
    if (reading.error) {
        POSTERN_TRY(check_unknown(crun.words, *reading.error));
        return crun;
    }
    if (!line.makes_container()) return crun;
    POSTERN_ASSIGN(std::optional<Json> config, read_config(line.config_path()));
    if (!config) return crun;
    POSTERN_ASSIGN(const std::optional<SliceRequest> request, find_slice_request(*config));
    if (!request) return crun;
    auto start = with_slice(std::move(crun), line, std::move(*config), *request);
    if (!start) return propagate(std::move(start), "slice " + request->name);
    return start;
}

Error become(CrunStart crun) {
    std::vector<char*> words{crun.program.data()};
    words.reserve(crun.words.size() + 2);
    for (std::string& each : crun.words) words.push_back(each.data());
    words.push_back(nullptr);
    (void)::execv(crun.program.c_str(), words.data());
    const int error = errno;
    return {fmt::format("{}: {}", crun.program, errno_text(error)), error};
}

int main_with_words(std::vector<std::string> words) {
    const CrunReading reading = read_crun_command_line(words);
    const auto program = find_crun();
    if (!program) return report_crun_error(program.error(), reading.line);
    auto crun = prepare({*program, std::move(words)}, reading);
    if (!crun) return report_crun_error(crun.error(), reading.line);
    return report_crun_error(become(std::move(*crun)), reading.line);
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
    return postern::main_with_words({argv + (argc > 0 ? 1 : 0), argv + argc});
}
