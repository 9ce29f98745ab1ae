// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "broker-core/json_reader.h"
#include "broker-core/result.h"

// What an OCI runtime tells its hooks, and of a bundle's config.json what they look at. Pure. (OCI
// runtime-spec 1.0: runtime.md, "State"; config.md, "Root".)

namespace postern {

/// Bytes of a state or a config.json at the most.
inline constexpr size_t kMaxContainerJson = 16 << 20;

/// A container as its runtime describes it on a hook's stdin.
struct ContainerState {
    std::string id;
    pid_t pid = 0;       ///< of its init; 0 where there is none: in poststop
    std::string bundle;  ///< absolute
};

/// Error: it is not a state, or one that no runtime gives (an id with a slash, a relative bundle). Keys that
/// are not looked at may be anything.
[[nodiscard]] Result<ContainerState> read_container_state(std::string_view text);

/// The root file system's folder that the config.json of `bundle` names; a relative one is the bundle's.
[[nodiscard]] Result<std::string> container_root(std::string_view config, const std::string& bundle);

/// The name of the folder that is a container's alone in kContainersDir: readable, of at most 49 bytes so
/// that a socket's path in it fits (unix(7)), and not that of a container that another runtime gave the same
/// id.
[[nodiscard]] std::string container_folder_name(const ContainerState& state);

}  // namespace postern
