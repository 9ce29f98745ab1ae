// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/cdi_spec.h"

#include "broker-core/file.h"
#include "oci-hook/container_mounts.h"
#include "oci-hook/slice_request.h"

namespace postern {
namespace {

/// Seconds. A device's first grant sets it up; without a limit a runtime would wait for ever.
constexpr unsigned kCreateTimeout = 120;
constexpr unsigned kPoststopTimeout = 60;

Json hook_arguments(const char* command, const std::string& name, const HookPlace& place) {
    Json words{kHookProgram, command, "--slice", name};
    add_broker_words(words, place.broker, place.config);
    return words;
}

Json hook(const char* command, unsigned timeout, const std::string& name, const HookPlace& place) {
    return {{"path", place.program},
            {"args", hook_arguments(command, name, place)},
            {"env", Json::array({kHookPath})},
            {"timeout", timeout}};
}

Json hook_of_stage(const char* stage, unsigned timeout, const std::string& name, const HookPlace& place) {
    Json edit = hook(stage, timeout, name, place);
    edit["hookName"] = stage;
    return edit;
}

/// The shim is executed, so there is no "noexec".
Json mount_options() {
    return {"bind", "ro", "nosuid", "nodev"};
}

}  // namespace

HookPlace own_hook_place() {
    return {fmt::format("{}/bin/{}", program_prefix(), kHookProgram), container_files(), kBrokerSocket,
            kBrokerConfig};
}

void add_broker_words(Json& words, const std::string& broker, const std::string& config) {
    if (broker != kBrokerSocket) {
        words.push_back("--broker");
        words.push_back(broker);
    }
    if (config != kBrokerConfig) {
        words.push_back("--config");
        words.push_back(config);
    }
}

Json cdi_spec(std::span<const NamedSlice> names, const HookPlace& place) {
    Json devices = Json::array();
    for (const NamedSlice& each : names) {
        const Json hooks = {hook_of_stage("createRuntime", kCreateTimeout, each.name, place),
                            hook_of_stage("poststop", kPoststopTimeout, each.name, place)};
        devices.push_back({{"name", each.name}, {"containerEdits", {{"hooks", hooks}}}});
    }
    const Json mount = {
        {"hostPath", place.files}, {"containerPath", kContainerTarget}, {"options", mount_options()}};
    return {{"cdiVersion", "0.5.0"},
            {"kind", kCdiKind},
            {"devices", devices},
            {"containerEdits", {{"mounts", Json::array({mount})}}}};
}

std::string cdi_text(const Json& spec) {
    return spec.dump(2) + "\n";
}

void add_slice_edits(Json& config, const std::string& name, const HookPlace& place) {
    config["hooks"]["createRuntime"].push_back(hook("createRuntime", kCreateTimeout, name, place));
    config["hooks"]["poststop"].push_back(hook("poststop", kPoststopTimeout, name, place));
    config["mounts"].push_back({{"destination", kContainerTarget},
                                {"type", "bind"},
                                {"source", place.files},
                                {"options", mount_options()}});
}

Result<std::string> precreate(std::string_view config, const HookPlace& place,
                              const std::function<Status(const SliceRequest&)>& check) {
    Json document = Json::parse(config, nullptr, false);
    if (document.is_discarded() || !document.is_object())
        return fail("config.json, on stdin, is no JSON object");
    POSTERN_ASSIGN(const std::optional<SliceRequest> request, find_slice_request(document));
    // What hooks ask for has all it needs.
    if (!request || request->by == Asked::ByHooks) return std::string(config);
    POSTERN_TRY(check(*request));
    const auto is = [&](const char* key, bool (Json::*right)() const noexcept) {
        const auto found = document.find(key);
        return found == document.end() || ((*found).*right)();
    };
    if (!is("hooks", &Json::is_object) || !is("mounts", &Json::is_array))
        return fail("config.json, on stdin, has hooks or mounts that no runtime would take");
    for (const char* const stage : {"createRuntime", "poststop"}) {
        const auto hooks = document.find("hooks");
        if (hooks == document.end()) break;
        const auto list = hooks->find(stage);
        if (list != hooks->end() && !list->is_array())
            return fail("config.json, on stdin: hooks.{} is no list", stage);
    }
    // add_slice_edits() takes an absent or null list for an empty one.
    add_slice_edits(document, request->name, place);
    return document.dump();
}

}  // namespace postern
