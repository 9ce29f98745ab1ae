// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/broker_config.h"
#include "broker-core/broker_message.h"
#include "broker-core/json_reader.h"
#include "broker-core/result.h"
#include "oci-hook/slice_request.h"

// What postern-crun makes of a container's config.json (OCI runtime-spec 1.0) and of its grant's manifest.
// Pure.

namespace postern {

/// Of a container that has a grant: its ID, for `crun state`.
inline constexpr const char* kGrantAnnotation = "dev.postern.grant";

/// Whether the container's first process is 1 in a pid namespace of its own; where it is not, its number is
/// known to nobody before it runs.
[[nodiscard]] bool has_own_pid_namespace(const Json& config);

/// The value of a variable in process.env; of several the last, as crun takes it.
[[nodiscard]] std::optional<std::string> variable_of(const Json& config, std::string_view name);

/// Names of `count` fds that the caller passes on itself: the first ones are those of a LISTEN_FDNAMES, and
/// "unknown", as sd_listen_fds_with_names(3) says, is who has none. Error: a name is one of the grant's, too.
[[nodiscard]] Result<std::vector<std::string>> caller_names(unsigned count, const std::string& listen_fdnames,
                                                            const std::vector<std::string>& grant_names);

/// The grant's manifest for a client that has it from the fd `first` on.
[[nodiscard]] Result<std::string> renumbered_manifest(std::string_view manifest,
                                                      const std::vector<std::string>& grant_names,
                                                      unsigned first);

struct ContainerEdit {
    std::string grant;
    std::vector<std::string> names;  ///< of all fds from 3 on
    std::string hook_program;        ///< absolute: postern-oci-hook
    std::string broker = kBrokerSocket;
    std::optional<unsigned> listen_pid;  ///< the fd of the program that sets LISTEN_PID
    std::string config = kBrokerConfig;  ///< of a broker on demand
};
/// Error: the configuration has no process, or hooks that no runtime would take.
[[nodiscard]] Status edit_container(Json& config, const ContainerEdit& edit);

}  // namespace postern
