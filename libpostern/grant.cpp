// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/grant.h"
#include "broker-core/guard.h"
#include "broker-core/guard_cgroup.h"
#include "broker-core/guard_lock.h"
#include "broker-core/guard_pins.h"
#include "broker-core/guard_support.h"
#include "broker-core/live_grant.h"
#include "broker-core/profile.h"
#include "broker-core/profile_reader.h"
#include "broker-core/result.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

namespace postern::library {
namespace {

Result<Profile> sandbox_of(const struct libpostern_profile* given) {
    if (given == nullptr) {
        POSTERN_ASSIGN(auto loaded, load_profile("default"));
        return std::move(loaded.profile);
    }
    if (given->profile.sandbox.time_limit) {
        return refuse(ENOTSUP,
                      "profile {}: sandbox.time_limit: the library has no timers; leave it out and give "
                      "libpostern_grant_wait() a "
                      "time-out",
                      given->profile.name);
    }
    return given->profile;
}

/// A cgroup for the grant, known to the guard as a sandbox.
Status make_sandbox(struct libpostern_context& context, struct libpostern_grant& grant) {
    POSTERN_ASSIGN(Guard * guard, guard_of(context));
    const std::lock_guard<std::mutex> lock(cgroup_mutex());
    const std::vector<std::pair<std::string, std::string>> limits(grant.sandbox.sandbox.cgroup.begin(),
                                                                  grant.sandbox.sandbox.cgroup.end());
    POSTERN_ASSIGN(Cgroup cgroup, Cgroup::create(fmt::format("{}-{}", ::getpid(), grant.grant.id), limits));
    POSTERN_ASSIGN(const unsigned level, cgroup.level());
    POSTERN_TRY(guard->add_sandbox(cgroup.id(), level));
    grant.cgroup.emplace(std::move(cgroup));
    return {};
}

}  // namespace

Status finish_once(libpostern_grant& grant) {
    if (grant.finished) return {};
    POSTERN_TRY(finish_grant(grant.grant));
    grant.finished = true;
    return {};
}

Status revoke_grant(libpostern_grant& grant) {
    if (!grant.context->guard || grant.device == nullptr) return {};
    POSTERN_ASSIGN(const GuardLock lock, GuardLock::take());
    POSTERN_ASSIGN(std::optional<GuardPins> pins, GuardPins::find(kBpffs));
    if (!pins)
        return refuse(ENOENT, "grant {}: the guard's pinned maps are gone from {}", grant.grant.id, kBpffs);
    POSTERN_ASSIGN(const auto files, pins->files());
    for (const LiveGrant& live : live_grants(files)) {
        if (live.id != grant.grant.id) continue;
        for (const GuardPins::Key& file : live.files) {
            if (auto revoked = pins->revoke(file, live.id); !revoked) return propagate(std::move(revoked));
        }
    }
    return {};
}

Status end_grant(libpostern_grant& grant) {
    Status first = revoke_grant(grant);
    if (grant.cgroup) keep_first(first, kill_cgroup(grant.cgroup->id()));
    grant.client.reset();
    grant.grant.fds.clear();
    const std::lock_guard<std::mutex> lock(cgroup_mutex());
    // Only now that nobody is in it: it is a sandbox as long as it has somebody to hold.
    if (grant.cgroup && grant.context->guard)
        keep_first(first, grant.context->guard->remove_sandbox(grant.cgroup->id()));
    grant.cgroup.reset();
    return first;
}

}  // namespace postern::library

using postern::Result;
using postern::Status;
using postern::library::call_in;
using postern::library::call_on;
using postern::library::need;
using postern::library::refuse;

extern "C" {

int libpostern_grant_new(struct libpostern_context* context, const struct libpostern_profile* sandbox,
                         unsigned slice, struct libpostern_grant** grant) {
    return call_in(context, "context", [&]() -> Status {
        POSTERN_TRY(need(grant, "grant"));
        auto made = std::make_unique<struct libpostern_grant>();
        made->context = context;
        made->grant = postern::begin_grant(slice);
        POSTERN_ASSIGN(made->sandbox, postern::library::sandbox_of(sandbox));
        context->grants.reserve(context->grants.size() + 1);
        POSTERN_TRY(postern::library::make_sandbox(*context, *made));
        *grant = made.get();
        context->grants.push_back(std::move(made));
        return {};
    });
}

const char* libpostern_grant_id(const struct libpostern_grant* grant) {
    return grant != nullptr ? grant->grant.id.c_str() : nullptr;
}

int libpostern_grant_fd(struct libpostern_grant* grant, const char* name) {
    return call_on(grant, "grant", [&]() -> Result<int> {
        POSTERN_TRY(need(name, "name"));
        for (const postern::NamedFd& each : grant->grant.fds) {
            if (each.fd && each.name == name) return each.fd.get();
        }
        return refuse(ENOENT, "grant {}: it has no fd \"{}\"", grant->grant.id, name);
    });
}

int libpostern_grant_denied(struct libpostern_grant* grant, uint64_t* count) {
    return call_on(grant, "grant", [&]() -> Status {
        POSTERN_TRY(need(count, "count"));
        POSTERN_ASSIGN(*count, grant->context->guard->denied(grant->grant.id));
        return {};
    });
}

int libpostern_grant_revoke(struct libpostern_grant* grant) {
    return call_on(grant, "grant", [&] { return postern::library::revoke_grant(*grant); });
}

int libpostern_grant_kill(struct libpostern_grant* grant) {
    return call_on(grant, "grant", [&] { return postern::kill_cgroup(grant->cgroup->id()); });
}

int libpostern_grant_end(struct libpostern_grant* grant) {
    if (grant == nullptr) return 0;
    struct libpostern_context* context = grant->context;
    return call_on(grant, "grant", [&]() -> Status {
        Status ended = postern::library::end_grant(*grant);
        std::erase_if(context->grants, [grant](const auto& each) { return each.get() == grant; });
        return ended;
    });
}

}  // extern "C"
