// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "broker-core/json_reader.h"
#include "broker-core/profile.h"
#include "broker-core/profile_reader.h"
#include "broker-core/result.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

// A policy that is built up is the device part of a profile, so that one reader and one set of checks judge
// both.

namespace postern::library {
namespace {

constexpr unsigned kWays = LIBPOSTERN_MMAP | LIBPOSTERN_PREAD | LIBPOSTERN_DMABUF;
constexpr unsigned kRights = LIBPOSTERN_READ | LIBPOSTERN_WRITE;
constexpr unsigned kWindowFlags = kWays | kRights | LIBPOSTERN_SHARED_PAGE;

Result<Profile> read_policy(const Json& document) {
    auto profile = read_profile(document, false);
    if (profile) {
        profile->name = "(policy)";
        if (auto checked = check_profile(*profile); !checked) return propagate(std::move(checked), "policy");
        return profile;
    }
    return propagate(std::move(profile), "policy");
}

/// Takes `changed` over if it makes sense as a whole.
Status change(struct libpostern_policy& policy, Json changed) {
    POSTERN_ASSIGN(policy.profile, read_policy(changed));
    policy.document = std::move(changed);
    return {};
}

Status check_built_up(const struct libpostern_policy* policy) {
    POSTERN_TRY(need(policy, "policy"));
    if (!policy->document.is_null()) return {};
    return refuse(EINVAL,
                  "a policy of a profile is as the profile says; change that, or build one up with "
                  "libpostern_policy_new()");
}

Result<Json> window_entry(const char* name, unsigned region, uint64_t offset, uint64_t length,
                          unsigned flags) {
    POSTERN_TRY(need(name, "name"));
    if ((flags & ~kWindowFlags) != 0)
        return refuse(EINVAL, "window \"{}\": unknown flags {:#x}", name, flags & ~kWindowFlags);
    if ((flags & kRights) == 0 || (flags & kWays) == 0) {
        return refuse(EINVAL, "window \"{}\": flags {:#x} have no {}", name, flags,
                      (flags & kRights) == 0 ? "right: add LIBPOSTERN_READ or _WRITE"
                                             : "way: add LIBPOSTERN_MMAP, _PREAD or _DMABUF");
    }
    Json methods = Json::array();
    if ((flags & LIBPOSTERN_MMAP) != 0) methods.push_back("mmap");
    if ((flags & LIBPOSTERN_DMABUF) != 0) methods.push_back("dmabuf");
    if ((flags & LIBPOSTERN_PREAD) != 0) methods.push_back("pread");
    Json entry{{"name", name},
               {"region", region_name(region)},
               {"offset", offset},
               {"length", length},
               {"access", Access{(flags & LIBPOSTERN_READ) != 0, (flags & LIBPOSTERN_WRITE) != 0}.text()},
               {"methods", std::move(methods)}};
    if ((flags & LIBPOSTERN_SHARED_PAGE) != 0) entry["shared_page"] = true;
    return entry;
}

/// What only a launcher that is the driver itself would do: it must not be left out in silence.
Status check_no_driver(const Profile& profile) {
    if (!profile.device) return refuse(EINVAL, "profile {}: has no \"device\" part", profile.name);
    const DeviceProfile& device = *profile.device;
    const char* key = !device.dma.empty()                                                 ? "dma"
                      : device.dma_map                                                    ? "dma_map"
                      : !device.peers.empty()                                             ? "peers"
                      : !device.irqs.empty()                                              ? "irqs"
                      : !device.setup.device.empty() || !device.setup.slice.empty()       ? "setup"
                      : !device.teardown.device.empty() || !device.teardown.slice.empty() ? "teardown"
                      : device.reset != Reset::Never                                      ? "reset"
                                                                                          : nullptr;
    if (key != nullptr) {
        return refuse(
            ENOTSUP,
            "profile {}: device.{}: here the caller is the driver and does that itself (libpostern_device_*, "
            "libpostern_grant_add_*); leave it out",
            profile.name, key);
    }
    if (!profile.files.empty())
        return refuse(ENOTSUP,
                      "profile {}: files: add them with libpostern_grant_add_fd(), or use postern run",
                      profile.name);
    return {};
}

}  // namespace
}  // namespace postern::library

using postern::Json;
using postern::Status;
using postern::library::call;
using postern::library::need;

extern "C" {

int libpostern_policy_new(struct libpostern_policy** policy) {
    return call([&]() -> Status {
        POSTERN_TRY(need(policy, "policy"));
        auto made = std::make_unique<struct libpostern_policy>();
        POSTERN_TRY(postern::library::change(*made, {{"postern", 1}, {"device", {{"forward", "sandbox"}}}}));
        *policy = made.release();
        return {};
    });
}

int libpostern_policy_from_profile(struct libpostern_policy** policy,
                                   const struct libpostern_profile* profile, unsigned slice) {
    return call([&]() -> Status {
        POSTERN_TRY(need(policy, "policy"));
        POSTERN_TRY(need(profile, "profile"));
        if (slice >= profile->profile.slices) {
            return postern::library::refuse(EINVAL, "profile {}: slice {} of {}", profile->profile.name,
                                            slice, profile->profile.slices);
        }
        POSTERN_TRY(postern::library::check_no_driver(profile->profile));
        *policy = new libpostern_policy{Json(), profile->profile, slice};
        return {};
    });
}

int libpostern_policy_window(struct libpostern_policy* policy, const char* name, unsigned region,
                             uint64_t offset, uint64_t length, unsigned flags) {
    return call([&]() -> Status {
        POSTERN_TRY(postern::library::check_built_up(policy));
        POSTERN_ASSIGN(Json entry, postern::library::window_entry(name, region, offset, length, flags));
        Json changed = policy->document;
        changed["device"]["windows"].push_back(std::move(entry));
        return postern::library::change(*policy, std::move(changed));
    });
}

int libpostern_policy_ioctl(struct libpostern_policy* policy, const char* ioctl) {
    return call([&]() -> Status {
        POSTERN_TRY(postern::library::check_built_up(policy));
        POSTERN_TRY(need(ioctl, "ioctl"));
        Json entry = ioctl;
        if (*ioctl == '{') {
            POSTERN_ASSIGN(entry, postern::parse_json(ioctl));
        }
        Json changed = policy->document;
        changed["device"]["ioctls"].push_back(std::move(entry));
        return postern::library::change(*policy, std::move(changed));
    });
}

int libpostern_policy_forward(struct libpostern_policy* policy, enum libpostern_forward forward) {
    return call([&]() -> Status {
        constexpr const char* kWords[] = {"sandbox", "never", "anyone"};
        POSTERN_TRY(postern::library::check_built_up(policy));
        const auto index = static_cast<unsigned>(forward);
        if (index >= std::size(kWords))
            return postern::library::refuse(EINVAL, "forward {} is unknown", index);
        Json changed = policy->document;
        changed["device"]["forward"] = kWords[index];
        return postern::library::change(*policy, std::move(changed));
    });
}

void libpostern_policy_free(struct libpostern_policy* policy) {
    delete policy;
}

}  // extern "C"
