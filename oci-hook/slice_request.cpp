// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/slice_request.h"

#include <algorithm>
#include <vector>

#include "oci-hook/cdi_spec.h"
#include "oci-hook/container_mounts.h"
#include "oci-hook/hook_commands.h"
#include "oci-hook/slice_name.h"

namespace postern {
namespace {

constexpr const char* kStages[] = {"createRuntime", "poststop"};

/// An element that is there and is one; nullptr else.
const Json* array_in(const Json& object, const char* key) {
    if (!object.is_object()) return nullptr;
    const auto found = object.find(key);
    return found != object.end() && found->is_array() ? &*found : nullptr;
}

bool is_slice_hook(const Json& hook) {
    if (!hook.is_object()) return false;
    const auto path = hook.find("path");
    if (path == hook.end() || !path->is_string()) return false;
    const auto& text = path->get_ref<const std::string&>();
    if (!text.ends_with(fmt::format("/{}", kHookProgram))) return false;
    const Json* words = array_in(hook, "args");
    return words != nullptr && words->size() >= 2 &&
           std::any_of(std::begin(kStages), std::end(kStages),
                       [&](const char* stage) { return (*words)[1] == stage; });
}

Result<SliceRequest> request_of_hook(const Json& hook) {
    std::vector<std::string> words;
    const Json& listed = hook.at("args");
    for (size_t i = 2; i < listed.size(); ++i) {
        if (!listed[i].is_string()) return fail("{}: its arguments are not all text", kHookProgram);
        words.push_back(listed[i].get<std::string>());
    }
    auto options = read_hook_options(words);
    if (!options) return propagate(std::move(options), fmt::format("hook {}", kHookProgram));
    return SliceRequest{options->slice, options->broker, options->config};
}

Status add(std::optional<SliceRequest>& found, SliceRequest more) {
    if (found && found->by != Asked::ByImagePerhaps && found->name != more.name) {
        return fail("slices {} and {} are both asked for, and a container can have one", found->name,
                    more.name);
    }
    found = std::move(more);
    return {};
}

/// podman that is 4.5.1 or younger says the version 1.1.0, or more, of the runtime specification. Its mark is
/// put in where there is none: an image can have it say something else, and cannot take it away.
bool may_have_the_images_annotations(const Json& config, const Json& annotations) {
    if (!annotations.contains("io.container.manager")) return false;
    const Json version = config.value("ociVersion", Json());
    if (!version.is_string()) return true;
    const auto& text = version.get_ref<const std::string&>();
    return text.starts_with("1.0.") || text.find("-rc") != std::string::npos;
}

}  // namespace

Status check_who_asks(const SliceRequest& request, const NamedSlice& slice) {
    if (request.by != Asked::ByImagePerhaps || slice.trusts_annotations) return {};
    return fail(
        "the annotation {} may be the image's: podman before 4.5.1 takes them from there; use --device "
        "postern.dev/slice={}, or "
        "say \"trust_annotations\": true in the file of {} in {} if all images are your own",
        kSliceAnnotation, request.name, slice.bdf, request.config);
}

Result<std::optional<SliceRequest>> find_slice_request(const Json& config) {
    std::optional<SliceRequest> found;
    if (!config.is_object()) return found;
    if (const auto annotations = config.find("annotations");
        annotations != config.end() && annotations->is_object()) {
        const auto slice = annotations->find(kSliceAnnotation);
        if (slice != annotations->end()) {
            if (!slice->is_string() || !is_slice_name(slice->get_ref<const std::string&>())) {
                return fail("annotation {}={}: is not the name of a slice, such as disk.0", kSliceAnnotation,
                            one_line(slice->dump(-1, ' ', false, Json::error_handler_t::replace)));
            }
            found = SliceRequest{slice->get<std::string>()};
            found->by = may_have_the_images_annotations(config, *annotations) ? Asked::ByImagePerhaps
                                                                              : Asked::ByAnnotation;
        }
    }
    const auto hooks = config.find("hooks");
    for (const char* stage : kStages) {
        const Json* listed = hooks == config.end() ? nullptr : array_in(*hooks, stage);
        if (listed == nullptr) continue;
        for (const Json& each : *listed) {
            if (!is_slice_hook(each)) continue;
            POSTERN_ASSIGN(SliceRequest asked, request_of_hook(each));
            POSTERN_TRY(add(found, std::move(asked)));
        }
    }
    return found;
}

void remove_slice_edits(Json& config) {
    bool was_there = false;
    const auto erase_if = [&](Json& list, const auto& is_ours) {
        for (size_t i = list.size(); i-- > 0;) {
            if (!is_ours(list[i])) continue;
            list.erase(i);
            was_there = true;
        }
    };
    const auto hooks = config.find("hooks");
    for (const char* stage : kStages) {
        if (hooks != config.end() && array_in(*hooks, stage) != nullptr)
            erase_if((*hooks)[stage], is_slice_hook);
    }
    // A volume of the user's own at that place is not ours to take.
    if (!was_there) return;
    if (array_in(config, "mounts") != nullptr) {
        erase_if(config["mounts"], [](const Json& mount) {
            return mount.is_object() && mount.value("destination", Json()) == kContainerTarget;
        });
    }
    if (!config.contains("process") || array_in(config["process"], "args") == nullptr) return;
    // Not only as the first: an init or the image's entrypoint may stand before it.
    Json& words = config["process"]["args"];
    const auto shim = std::find(words.begin(), words.end(), Json(fmt::format("{}/shim", kContainerTarget)));
    if (shim != words.end() && std::next(shim) != words.end()) words.erase(shim);
}

}  // namespace postern
