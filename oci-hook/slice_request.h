// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "broker-core/broker_config.h"
#include "broker-core/broker_message.h"
#include "broker-core/json_reader.h"
#include "broker-core/result.h"
#include "oci-hook/slice_name.h"

// Which slice a container's config.json asks for: by the annotation dev.postern.slice, or by the hooks that
// `podman --device postern.dev/slice=NAME` has put there (cdi_spec.h). Pure.

namespace postern {

enum class Asked {
    ByHooks,
    ByAnnotation,
    /// Or so it seems: podman before 4.5.1 hands an image's annotations on as the container's own. Only for
    /// slices of a device with "trust_annotations".
    ByImagePerhaps,
};

struct SliceRequest {
    std::string name;
    std::string broker = kBrokerSocket;
    std::string config = kBrokerConfig;
    Asked by = Asked::ByHooks;
};

/// Error: the slice is not for an image to ask for. Pure.
[[nodiscard]] Status check_who_asks(const SliceRequest& request, const NamedSlice& slice);

/// nullopt: none. Error: two different ones, or one that cannot be read. An annotation that may be the
/// image's is nothing beside hooks.
[[nodiscard]] Result<std::optional<SliceRequest>> find_slice_request(const Json& config);

/// Takes out what CDI has put in for runtimes that pass no fds: its hooks, its mount, and its shim in front
/// of the command.
void remove_slice_edits(Json& config);

}  // namespace postern
