// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_config.h"

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "broker-core/file.h"
#include "broker-core/pci.h"

namespace postern {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr size_t kMaxRules = 256;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File open_stream(const char* path) {
    return {std::fopen(path, "re"), std::fclose};
}

template <typename Id>
void read_ids(ObjectReader& reader, std::string_view key, const char* kind, std::vector<Id>& ids,
              const std::function<std::optional<Id>(const std::string&)>& find) {
    reader.each(key, [&](const Json& element, const std::string& path) {
        if (element.is_number_unsigned() && element.get<uint64_t>() < UINT32_MAX) {
            ids.push_back(element.get<Id>());
        } else if (element.is_string()) {
            const auto id = find(element.get<std::string>());
            if (id) {
                ids.push_back(*id);
            } else {
                reader.set_error(
                    path, fmt::format("there is no {} \"{}\" in /etc/{}; name one of a directory "
                                      "service by number",
                                      kind, element.get<std::string>(), kind[0] == 'u' ? "passwd" : "group"));
            }
        } else {
            reader.set_error(
                path, fmt::format("must be a {}'s name or number, and is {}", kind, json_type(element)));
        }
    });
}

SliceRule read_rule(const Json& element, const std::string& path, JsonReading& reading,
                    const NameLookup& names) {
    SliceRule rule;
    ObjectReader reader(element, path, reading);
    read_ids<uid_t>(reader, "users", "user", rule.users, names.user);
    read_ids<gid_t>(reader, "groups", "group", rule.groups, names.group);
    rule.everyone = reader.boolean("everyone", false);
    if (reader.find("slices") != nullptr) {
        std::vector<unsigned>& slices = rule.slices.emplace();
        reader.each("slices", [&](const Json& number, const std::string& where) {
            if (number.is_number_unsigned() && number.get<uint64_t>() < 4096) {
                slices.push_back(number.get<unsigned>());
            } else {
                reader.set_error(where, "must be the number of a slice");
            }
        });
    }
    if (reader.find("most") != nullptr)
        rule.most = static_cast<unsigned>(reader.integer_in("most", 1, 4096, 1));
    if (!reader.failed() && rule.users.empty() && rule.groups.empty() && !rule.everyone)
        reader.set_error(path, "is about nobody; give it \"users\", \"groups\" or \"everyone\": true");
    reader.finish();
    return rule;
}

/// Whoever may write the file decides who may have the device.
Status check_owner(const std::string& path) {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) {
        const int error = errno;
        return fail_errno(error, "{}: cannot be looked at", path);
    }
    if ((found.st_uid != 0 && found.st_uid != ::geteuid()) || (found.st_mode & 022) != 0) {
        return fail("{}: others than its owner, who must be root, may write to it: chown root, chmod go-w",
                    path);
    }
    return {};
}

}  // namespace

NameLookup local_names() {
    return {[](const std::string& name) -> std::optional<uid_t> {
                const File file = open_stream("/etc/passwd");
                // The one thread of a program that reads its configuration.
                while (const passwd* entry = file ? ::fgetpwent(file.get()) : nullptr) {
                    if (name == entry->pw_name) return entry->pw_uid;
                }
                return std::nullopt;
            },
            [](const std::string& name) -> std::optional<gid_t> {
                const File file = open_stream("/etc/group");
                while (const group* entry = file ? ::fgetgrent(file.get()) : nullptr) {
                    if (name == entry->gr_name) return entry->gr_gid;
                }
                return std::nullopt;
            }};
}

Result<BrokerDevice> read_broker_device(const Json& document, const std::string& name,
                                        const NameLookup& names) {
    BrokerDevice device;
    device.name = name;
    JsonReading reading;
    ObjectReader reader(document, "", reading);
    if (const auto version = reader.integer("postern", true); version && *version != 1)
        reader.set_error("postern", fmt::format("version {}; this postern reads version 1", *version));
    const std::string address = reader.string("device", true);
    device.profile = reader.string("profile", true);
    device.bind = reader.boolean("bind", false);
    device.trusts_annotations = reader.boolean("trust_annotations", false);
    device.trusts_dma_map = reader.boolean("trust_dma_map", false);
    const std::string backend = reader.string("backend", false);
    reader.each("allow", [&](const Json& element, const std::string& path) {
        device.allow.push_back(read_rule(element, path, reading, names));
    });
    if (device.allow.size() > kMaxRules)
        reader.set_error("allow", fmt::format("{} rules; at most {}", device.allow.size(), kMaxRules));
    if (!reader.failed() && !backend.empty()) {
        if (auto parsed = parse_backend(backend)) {
            device.backend = *parsed;
        } else {
            reader.set_error("backend", parsed.error().message);
        }
    }
    if (!reader.failed()) {
        auto bdf = parse_bdf(address);
        if (bdf) {
            device.bdf = std::move(*bdf);
        } else {
            reader.set_error("device", bdf.error().message);
        }
    }
    reader.finish();
    if (reading.error) return Failure(std::move(*reading.error).within(name));
    return device;
}

Result<std::vector<BrokerDevice>> load_broker_config(const std::string& folder) {
    std::vector<std::string> files;
    for (std::string& file : names_in(folder)) {
        if (file.ends_with(".json") && !file.starts_with('.')) files.push_back(std::move(file));
    }
    std::sort(files.begin(), files.end());
    if (!files.empty()) POSTERN_TRY(check_owner(folder));
    const NameLookup names = local_names();
    std::vector<BrokerDevice> devices;
    for (const std::string& file : files) {
        const std::string path = fmt::format("{}/{}", folder, file);
        POSTERN_TRY(check_owner(path));
        POSTERN_ASSIGN(const std::string text, read_file(path, kMaxConfigBytes));
        auto document = parse_json(text);
        if (!document) return propagate(std::move(document), path);
        auto device = read_broker_device(*document, file.substr(0, file.size() - 5), names);
        if (!device) return propagate(std::move(device), folder);
        for (const BrokerDevice& other : devices) {
            if (other.bdf == device->bdf)
                return fail("{}: {} and {} have the same device, {}; keep one", folder, other.name,
                            device->name, device->bdf);
        }
        devices.push_back(std::move(*device));
    }
    return devices;
}

const BrokerDevice* find_device(const std::vector<BrokerDevice>& config, const std::string& bdf) {
    const auto found =
        std::find_if(config.begin(), config.end(), [&](const BrokerDevice& each) { return each.bdf == bdf; });
    return found == config.end() ? nullptr : &*found;
}

Result<const BrokerDevice*> find_peer(const std::vector<BrokerDevice>& config, const std::string& bdf) {
    const BrokerDevice* found = find_device(config, bdf);
    if (found == nullptr) return fail("the broker has no device {}; add it in {}", bdf, kBrokerConfig);
    return found;
}

}  // namespace postern
