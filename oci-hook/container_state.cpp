// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/container_state.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <limits>

#include "broker-core/broker_message.h"

namespace postern {
namespace {

constexpr size_t kMostOfId = 32;

Result<Json> parse_object(std::string_view text) {
    // Not parse_json(): a runtime's own keys are not ours to judge.
    Json document = Json::parse(text, nullptr, false);
    if (document.is_discarded()) return fail("is not JSON");
    if (!document.is_object()) return fail("is no JSON object");
    return document;
}

Result<std::string> text_of(const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string() || found->get_ref<const std::string&>().empty())
        return fail("has no text \"{}\"", key);
    return found->get<std::string>();
}

/// FNV-1a: names apart, guards nothing.
uint64_t hash_of(std::string_view text) {
    uint64_t hash = 0xcbf29ce484222325;
    for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
    return hash;
}

Result<ContainerState> read_state(std::string_view text) {
    POSTERN_ASSIGN(const Json document, parse_object(text));
    ContainerState state;
    POSTERN_ASSIGN(state.id, text_of(document, "id"));
    POSTERN_ASSIGN(state.bundle, text_of(document, "bundle"));
    if (state.id.find('/') != std::string::npos || state.id == "." || state.id == "..")
        return fail("has the id \"{}\", which no runtime gives", one_line(state.id));
    if (!state.bundle.starts_with('/')) return fail("has the relative bundle \"{}\"", one_line(state.bundle));
    const auto pid = document.find("pid");
    if (pid == document.end()) return state;
    if (!pid->is_number_unsigned() || pid->get<uint64_t>() > std::numeric_limits<pid_t>::max())
        return fail("has a \"pid\" that is no process's");
    state.pid = pid->get<pid_t>();
    return state;
}

}  // namespace

Result<ContainerState> read_container_state(std::string_view text) {
    auto state = read_state(text);
    if (!state) return propagate(std::move(state), "the container's state, on stdin");
    return state;
}

Result<std::string> container_root(std::string_view config, const std::string& bundle) {
    const auto read = [&]() -> Result<std::string> {
        POSTERN_ASSIGN(const Json document, parse_object(config));
        const auto root = document.find("root");
        if (root == document.end() || !root->is_object()) return fail("has no \"root\"");
        POSTERN_ASSIGN(std::string path, text_of(*root, "path"));
        return path.starts_with('/') ? path : fmt::format("{}/{}", bundle, path);
    };
    auto path = read();
    if (!path) return propagate(std::move(path), fmt::format("{}/config.json", bundle));
    return path;
}

std::string container_folder_name(const ContainerState& state) {
    std::string name = state.id.substr(0, kMostOfId);
    std::replace_if(
        name.begin(), name.end(),
        [](char letter) { return std::isalnum(static_cast<unsigned char>(letter)) == 0; }, '_');
    return fmt::format("{}-{:016x}", name, hash_of(fmt::format("{}\n{}", state.id, state.bundle)));
}

}  // namespace postern
