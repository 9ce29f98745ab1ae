// SPDX-License-Identifier: Apache-2.0
#include "launcher/cdi_state.h"

#include <algorithm>
#include <set>

#include "broker-core/file.h"
#include "oci-hook/configured_slices.h"
#include "oci-hook/hook_commands.h"

namespace postern {
namespace {

bool has_kind(const Json& document) {
    const auto kind = document.is_object() ? document.find("kind") : document.end();
    return document.is_object() && kind != document.end() && *kind == kCdiKind;
}

std::set<std::string> device_names(const Json& spec) {
    std::set<std::string> names;
    const auto devices = spec.find("devices");
    if (devices == spec.end() || !devices->is_array()) return names;
    for (const Json& each : *devices) {
        if (each.is_object() && each.contains("name") && each["name"].is_string())
            names.insert(each["name"].get<std::string>());
    }
    return names;
}

std::vector<std::string> only_in(const std::set<std::string>& these, const std::set<std::string>& those) {
    std::vector<std::string> names;
    std::set_difference(these.begin(), these.end(), those.begin(), those.end(), std::back_inserter(names));
    return names;
}

std::string hook_path(const Json& spec) {
    const Json::json_pointer place("/devices/0/containerEdits/hooks/0/path");
    return spec.contains(place) && spec[place].is_string() ? spec[place].get<std::string>() : std::string();
}

std::string rewrite(const std::string& path, const HookPlace& place) {
    Json words = Json::array();
    add_broker_words(words, place.broker, place.config);
    std::string line = fmt::format("postern cdi generate -o {}", path);
    for (const Json& each : words) line += " " + each.get<std::string>();
    return line;
}

}  // namespace

std::vector<CdiFile> find_cdi_files(std::span<const char* const> folders) {
    std::vector<CdiFile> files;
    for (const char* const folder : folders) {
        std::vector<std::string> names = names_in(folder);
        std::sort(names.begin(), names.end());
        for (const std::string& name : names) {
            if (!name.ends_with(".json")) continue;
            const std::string path = fmt::format("{}/{}", folder, name);
            const auto text = read_file(path, kMaxCdiFile);
            auto spec = text ? parse_json(*text) : Result<Json>(Failure(text.error()));
            if (spec ? has_kind(*spec) : name.starts_with("postern"))
                files.push_back({path, std::move(spec)});
        }
    }
    return files;
}

HookPlace cdi_place(const std::vector<CdiFile>& files, HookPlace own) {
    const Json::json_pointer place("/devices/0/containerEdits/hooks/0/args");
    if (files.size() != 1 || !files[0].spec || !files[0].spec->contains(place)) return own;
    const Json& listed = (*files[0].spec)[place];
    std::vector<std::string> words;
    for (size_t i = 2; listed.is_array() && i < listed.size(); ++i) {
        if (!listed[i].is_string()) return own;
        words.push_back(listed[i].get<std::string>());
    }
    if (const auto options = read_hook_options(words)) {
        own.broker = options->broker;
        own.config = options->config;
    }
    return own;
}

Result<Json> expected_cdi_spec(const HookPlace& place) {
    POSTERN_ASSIGN(const std::vector<NamedSlice> names, configured_slices(place.config));
    return names.empty() ? Json() : cdi_spec(names, place);
}

std::string cdi_difference(const Json& expected, const Json& found) {
    if (expected == found) return {};
    const std::set<std::string> wanted = device_names(expected);
    const std::set<std::string> there = device_names(found);
    if (const auto missing = only_in(wanted, there); !missing.empty())
        return fmt::format("lacks {}", fmt::join(missing, ", "));
    if (const auto more = only_in(there, wanted); !more.empty())
        return fmt::format("has {}, which the configuration does not have", fmt::join(more, ", "));
    const std::string own = hook_path(expected);
    if (const std::string other = hook_path(found); own != other)
        return fmt::format("names the hook {}, and not {}", other.empty() ? "of nobody" : other, own);
    return "was made by another version, or changed by hand";
}

Requirement check_cdi(const std::vector<CdiFile>& files, const Result<Json>& expected, bool hook_is_there,
                      const HookPlace& place) {
    Requirement line{"cdi", "slices for containers", false, false, "", ""};
    const auto wrong = [&](std::string found, std::string mend) {
        line.found = std::move(found);
        line.mend = std::move(mend);
        return line;
    };
    const auto fine = [&](std::string found) {
        line.met = line.optional = true;
        line.found = std::move(found);
        return line;
    };
    if (!expected) {
        return wrong(fmt::format("the configuration cannot be read: {}", expected.error().message),
                     "mend it; `postern broker --check` reads it again");
    }
    const bool configured = !expected->is_null();
    if (!configured && files.empty()) return fine("none: no device is configured");
    if (files.empty()) {
        line.optional = true;
        return wrong(
            fmt::format("no specification of {} in {}", kCdiKind, fmt::join(kCdiFolders, ", ")),
            fmt::format(
                "where containers are to have slices: {} (systemctl enable --now postern-cdi.path keeps it "
                "up to date)",
                rewrite(kCdiFile, place)));
    }
    for (const CdiFile& each : files) {
        if (!each.spec) {
            return wrong(fmt::format("{} cannot be read: {}", each.path, each.spec.error().message),
                         rewrite(each.path, place));
        }
        if (!configured)
            return wrong(fmt::format("{} is stale: no device is configured", each.path),
                         fmt::format("rm {}", each.path));
    }
    if (files.size() > 1) {
        return wrong(fmt::format("{} and {} are both of {}, and containers see one at best", files[0].path,
                                 files[1].path, kCdiKind),
                     fmt::format("rm {}", files[1].path));
    }
    if (const std::string difference = cdi_difference(*expected, *files[0].spec); !difference.empty())
        return wrong(fmt::format("{} is stale: it {}", files[0].path, difference),
                     rewrite(files[0].path, place));
    if (!hook_is_there) {
        return wrong(fmt::format("{} names {}, which is not there", files[0].path, hook_path(*expected)),
                     "install postern whole");
    }
    return fine(files[0].path);
}

}  // namespace postern
