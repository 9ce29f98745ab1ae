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

Result<ServicePlace> open_service_place(const std::string& kind, const std::string& folder) {
    const bool has_store = std::getenv("FDSTORE") != nullptr;
    const auto manager = std::make_shared<std::optional<ServiceManager>>();
    POSTERN_ASSIGN(*manager, ServiceManager::from_environment());
    POSTERN_ASSIGN(std::vector<NamedFd> passed, take_passed_fds());
    ServicePlace place;
    bool by_systemd = kind == "systemd";
    // What a broker on demand has left with a holder is the next one's, also if systemd starts that; until it
    // is all given back.
    if (kind == "auto" && *manager && has_store)
        by_systemd = passed.size() > 1 || !connect_to(folder + "/holder.sock");
    if (by_systemd) {
        if (!*manager) return fail("keeper systemd: systemd has not started this process ($NOTIFY_SOCKET)");
        POSTERN_ASSIGN(auto keeper, SystemdKeeper::from_environment(std::move(**manager), passed));
        place.notify = [told = &keeper->manager()](std::string_view text) { return told->notify(text); };
        place.keeper = std::move(keeper);
    } else {
        if (kind == "none") {
            place.keeper = std::make_unique<NoKeeper>();
        } else {
            POSTERN_ASSIGN(place.keeper, HolderKeeper::connect_or_start(folder));
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
