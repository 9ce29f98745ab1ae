// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/container_config.h"

#include <algorithm>

#include "broker-core/passed_fds.h"
#include "oci-hook/cdi_spec.h"

namespace postern {
namespace {

/// Seconds. A broker that has to be started first loads the guard.
constexpr unsigned kHookTimeout = 120;
/// Of a namespace that is made anew.
constexpr const char* kNoPath = "";
constexpr const char* kListenVariables[] = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"};

bool is_variable(const Json& entry, std::string_view name) {
    if (!entry.is_string()) return false;
    const std::string_view text = entry.get_ref<const std::string&>();
    return text.starts_with(name) && text.size() > name.size() && text[name.size()] == '=';
}

Json hook(const char* command, const ContainerEdit& edit) {
    Json words{kHookProgram, command, "--grant", edit.grant};
    add_broker_words(words, edit.broker, edit.config);
    return {{"path", edit.hook_program},
            {"args", std::move(words)},
            {"env", Json::array({kHookPath})},
            {"timeout", kHookTimeout}};
}

/// The list `key` of `object`, made where there is none.
Result<Json*> list_of(Json& object, const char* key) {
    Json& list = object[key];
    if (list.is_null()) list = Json::array();
    if (!list.is_array()) return fail("config.json: {} is {}, not a list", key, json_type(list));
    return &list;
}

Status add_hook(Json& config, const char* stage, const Json& entry) {
    Json& hooks = config["hooks"];
    if (hooks.is_null()) hooks = Json::object();
    if (!hooks.is_object()) return fail("config.json: hooks is {}, not an object", json_type(hooks));
    POSTERN_ASSIGN(Json* const list, list_of(hooks, stage));
    list->insert(list->begin(), entry);
    return {};
}

Status set_variables(Json& process, const ContainerEdit& edit) {
    POSTERN_ASSIGN(Json* const variables, list_of(process, "env"));
    for (size_t i = variables->size(); i-- > 0;) {
        const bool listens =
            std::any_of(std::begin(kListenVariables), std::end(kListenVariables),
                        [&](const char* name) { return is_variable((*variables)[i], name); });
        if (listens) variables->erase(i);
    }
    variables->push_back(fmt::format("LISTEN_FDS={}", edit.names.size()));
    variables->push_back(fmt::format("LISTEN_FDNAMES={}", fmt::join(edit.names, ":")));
    // crun adds one of its own where it is missing; an init such as catatonit replaces 1 by its child's.
    variables->push_back("LISTEN_PID=1");
    return {};
}

}  // namespace

bool has_own_pid_namespace(const Json& config) {
    const Json namespaces = config.value(Json::json_pointer("/linux/namespaces"), Json::array());
    return namespaces.is_array() && std::any_of(namespaces.begin(), namespaces.end(), [](const Json& each) {
               return each.is_object() && each.value("type", Json()) == "pid" &&
                      each.value("path", Json(kNoPath)) == kNoPath;
           });
}

std::optional<std::string> variable_of(const Json& config, std::string_view name) {
    std::optional<std::string> value;
    const Json variables = config.value(Json::json_pointer("/process/env"), Json::array());
    for (const Json& each : variables) {
        if (is_variable(each, name)) value = each.get_ref<const std::string&>().substr(name.size() + 1);
    }
    return value;
}

Result<std::vector<std::string>> caller_names(unsigned count, const std::string& listen_fdnames,
                                              const std::vector<std::string>& grant_names) {
    std::vector<std::string> names;
    names.reserve(count);
    std::string_view rest = listen_fdnames;
    while (names.size() < count) {
        const size_t colon = rest.find(':');
        const std::string_view name = rest.substr(0, colon);
        rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon + 1);
        if (std::find(grant_names.begin(), grant_names.end(), name) != grant_names.end()) {
            return fail(
                "fd {} is passed on by the caller under the name \"{}\", which one of the grant's has; give "
                "it another in LISTEN_FDNAMES",
                kFirstFd + names.size(), one_line(name));
        }
        names.emplace_back(name.empty() ? "unknown" : name);
    }
    return names;
}

Result<std::string> renumbered_manifest(std::string_view manifest,
                                        const std::vector<std::string>& grant_names, unsigned first) {
    auto document = parse_json(manifest);
    if (!document || !document->is_object()) return fail("the grant's manifest cannot be read");
    Json fds = Json::object();
    for (size_t i = 0; i < grant_names.size(); ++i) fds[grant_names[i]] = first + i;
    (*document)["fds"] = std::move(fds);
    return document->dump();
}

Status edit_container(Json& config, const ContainerEdit& edit) {
    if (!config.contains("process") || !config["process"].is_object())
        return fail("config.json: has no process that could have a slice");
    Json& process = config["process"];
    POSTERN_TRY(set_variables(process, edit));
    if (edit.listen_pid) {
        POSTERN_ASSIGN(Json* const words, list_of(process, "args"));
        words->insert(words->begin(), fmt::format("/proc/self/fd/{}", *edit.listen_pid));
    }
    Json& annotations = config["annotations"];
    if (annotations.is_null()) annotations = Json::object();
    if (annotations.is_object()) annotations[kGrantAnnotation] = edit.grant;
    POSTERN_TRY(add_hook(config, "createRuntime", hook("enter", edit)));
    return add_hook(config, "poststop", hook("leave", edit));
}

}  // namespace postern
