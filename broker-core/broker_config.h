// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/device_access.h"
#include "broker-core/json_reader.h"
#include "broker-core/result.h"

namespace postern {

/// Where administrators say which devices the broker has and who may use them.
inline constexpr const char* kBrokerConfig = "/etc/postern/devices.d";

/// Whom of the callers a rule is about, and what they may have.
struct SliceRule {
    std::vector<uid_t> users;
    std::vector<gid_t> groups;
    bool everyone = false;
    std::optional<std::vector<unsigned>> slices;  ///< all without
    std::optional<unsigned> most;                 ///< of this device at once, per user
};

/// One device of the broker's: a file of its configuration.
struct BrokerDevice {
    std::string name;  ///< of the file, without ".json"
    std::string bdf;
    std::string profile;              ///< name or file
    bool bind = false;                ///< to vfio-pci, when the device is first needed
    bool trusts_annotations = false;  ///< also where podman may have them from an image
    /// That no user has a VFIO device of their own, which they could put into the address space of a device
    /// whose iommufd they have (`dma_map`).
    bool trusts_dma_map = false;
    std::optional<Backend> backend;  ///< by which it is owned; default_backend() without
    std::vector<SliceRule> allow;
};

/// A user's or group's number by its name; nullopt if there is none.
struct NameLookup {
    std::function<std::optional<uid_t>(const std::string&)> user;
    std::function<std::optional<gid_t>(const std::string&)> group;
};
/// By /etc/passwd and /etc/group alone: a static program has no other sources of names (nsswitch.conf(5)), so
/// users of a directory service are named by number.
[[nodiscard]] NameLookup local_names();

/// Reads one file's document; `name` is for errors. Pure, as far as `names` is.
[[nodiscard]] Result<BrokerDevice> read_broker_device(const Json& document, const std::string& name,
                                                      const NameLookup& names);

/// All *.json of the folder, by name. A folder that is not there has none; a file that cannot be read, two
/// that have one device, or one that others than root may write to are errors: who may have a device is never
/// a guess.
[[nodiscard]] Result<std::vector<BrokerDevice>> load_broker_config(const std::string& folder);

/// Of the configuration, which is borrowed; nullptr if it has no such device.
[[nodiscard]] const BrokerDevice* find_device(const std::vector<BrokerDevice>& config,
                                              const std::string& bdf);

/// The one that a profile's "peers" names: it must be the broker's, too.
[[nodiscard]] Result<const BrokerDevice*> find_peer(const std::vector<BrokerDevice>& config,
                                                    const std::string& bdf);

}  // namespace postern
