// SPDX-License-Identifier: Apache-2.0
#include "broker-core/open_keeper.h"

#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include "broker-core/holder_keeper.h"
#include "broker-core/packet.h"
#include "broker-core/service_manager.h"
#include "broker-core/systemd_keeper.h"

namespace postern {

namespace {

Result<std::unique_ptr<Keeper>> own_keeper(const std::string& kind, const std::string& folder) {
    if (kind == "none") return std::make_unique<NoKeeper>();
    POSTERN_ASSIGN(auto holder, HolderKeeper::connect_or_start(folder));
    return holder;
}

/// What a broker on demand has left is the next one's, also if systemd starts that; until it is all given
/// back. nullptr: there is none. One that keeps nothing is ended.
Result<std::unique_ptr<Keeper>> left_holder(const std::string& folder) {
    if (!connect_to(folder + "/holder.sock")) return nullptr;
    POSTERN_ASSIGN(std::unique_ptr<Keeper> holder, own_keeper("holder", folder));
    POSTERN_ASSIGN(const bool quit, quit_if_empty(*holder));
    if (quit) holder.reset();
    return holder;
}

}  // namespace

Result<ServicePlace> open_service_place(const std::string& kind, const std::string& folder) {
    const bool has_store = std::getenv("FDSTORE") != nullptr;
    const auto manager = std::make_shared<std::optional<ServiceManager>>();
    POSTERN_ASSIGN(*manager, ServiceManager::from_environment());
    POSTERN_ASSIGN(std::vector<NamedFd> passed, take_passed_fds());
    ServicePlace place;
    bool by_systemd = kind == "systemd" || (kind == "auto" && *manager && has_store);
    if (kind == "auto" && by_systemd && passed.size() <= 1) {
        POSTERN_ASSIGN(place.keeper, left_holder(folder));
        by_systemd = !place.keeper;
    }
    if (by_systemd) {
        if (!*manager) return fail("keeper systemd: systemd has not started this process ($NOTIFY_SOCKET)");
        POSTERN_ASSIGN(auto keeper, SystemdKeeper::from_environment(std::move(**manager), passed));
        place.notify = [told = &keeper->manager()](std::string_view text) { return told->notify(text); };
        place.keeper = std::move(keeper);
    } else {
        if (!place.keeper) {
            POSTERN_ASSIGN(place.keeper, own_keeper(kind, folder));
        }
        place.notify = [manager](std::string_view text) {
            return *manager ? (*manager)->notify(text) : Status();
        };
    }
    if (passed.size() > 1)
        return fail("{} sockets were passed to the broker, and it serves one: one ListenSequentialPacket=",
                    passed.size());
    if (!passed.empty()) place.listener = std::move(passed.front().fd);
    return place;
}

}  // namespace postern
