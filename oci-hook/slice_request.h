// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "broker-core/broker_config.h"
#include "broker-core/broker_message.h"
#include "broker-core/json_reader.h"
#include "broker-core/result.h"

// Which slice a container's config.json asks for: by the annotation dev.postern.slice, or by the hooks that
// `podman --device postern.dev/slice=NAME` has put there (cdi_spec.h). Pure.

namespace postern {

struct SliceRequest {
    std::string name;
    std::string broker = kBrokerSocket;
    std::string config = kBrokerConfig;
};

/// nullopt: none. Error: two different ones, or one that cannot be read.
[[nodiscard]] Result<std::optional<SliceRequest>> find_slice_request(const Json& config);

/// Takes out what CDI has put in for runtimes that pass no fds: its hooks, its mount, and its shim in front
/// of the command.
void remove_slice_edits(Json& config);

}  // namespace postern
