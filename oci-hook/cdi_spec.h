// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string>

#include "broker-core/broker_config.h"
#include "broker-core/broker_message.h"
#include "broker-core/json_reader.h"
#include "oci-hook/slice_name.h"

// What a container needs to get a slice from a runtime that knows nothing of postern: two hooks and a mount.
// As a specification of the Container Device Interface (CDI, SPEC.md version 0.5.0), and as edits of a
// config.json (OCI runtime-spec 1.0). Pure.

namespace postern {

struct SliceRequest;

inline constexpr const char* kCdiKind = "postern.dev/slice";
/// Of a container that is to have a slice: its name. postern-crun and `postern-oci-hook precreate` look for
/// it.
inline constexpr const char* kSliceAnnotation = "dev.postern.slice";
inline constexpr const char* kHookProgram = "postern-oci-hook";
/// All that the hooks may know of their caller's environment: runc gives them the image's.
inline constexpr const char* kHookPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which files and which broker the hooks are to use.
struct HookPlace {
    std::string program;  ///< absolute: postern-oci-hook
    std::string files;    ///< absolute: container_files()
    std::string broker = kBrokerSocket;
    std::string config = kBrokerConfig;
};
/// Those of the running program's own tree.
[[nodiscard]] HookPlace own_hook_place();

/// Adds to a hook's arguments what is not as usual: the broker's socket, and the configuration of one that
/// has to be started.
void add_broker_words(Json& words, const std::string& broker, const std::string& config);

/// One device for each name. `names` is not empty: CDI has no specification without devices.
[[nodiscard]] Json cdi_spec(std::span<const NamedSlice> names, const HookPlace& place);
/// As it is in a file.
[[nodiscard]] std::string cdi_text(const Json& spec);

/// Adds to an OCI config.json what cdi_spec() says of the slice `name`.
void add_slice_edits(Json& config, const std::string& name, const HookPlace& place);

/// What `postern-oci-hook precreate` makes of a config.json: unchanged, to the byte, without the annotation,
/// or where CDI was there before. `check` says whether a slice may be asked for so.
[[nodiscard]] Result<std::string> precreate(std::string_view config, const HookPlace& place,
                                            const std::function<Status(const SliceRequest&)>& check);

}  // namespace postern
