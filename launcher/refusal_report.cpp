// SPDX-License-Identifier: Apache-2.0
#include "launcher/refusal_report.h"

#include "bpf/verdict.h"
#include "broker-core/guard_event.h"
#include "launcher/report.h"

namespace postern {
namespace {

/// A client that is refused something is often refused it again and again.
constexpr unsigned kShown = 3;

}  // namespace

RefusalReport::~RefusalReport() {
    if (listener_) supervisor_.unwatch(listener_->fd());
}

std::string RefusalReport::prefix(unsigned slice) const {
    return clients_ == Clients::One ? "postern: " : fmt::format("postern: slice {}: ", slice);
}

void RefusalReport::listen(Guard& guard, uint64_t cgroup_id) {
    if (tried_) return;
    tried_ = true;
    // One listener for all clients: there are not many.
    auto listener = guard.listen(clients_ == Clients::One ? cgroup_id : 0);
    if (!listener) return;
    listener_.emplace(std::move(*listener));
    supervisor_.watch(listener_->fd(), [this] { read(); });
}

void RefusalReport::begin(Guard& guard, unsigned slice, uint64_t cgroup_id) {
    listen(guard, cgroup_id);
    read();  // what came up to here is about other clients, or this one's proof
    by_slice_[slice] = Client{cgroup_id};
}

void RefusalReport::read() {
    if (!listener_) return;
    // An unreadable buffer only costs the details; the count comes from elsewhere.
    (void)listener_->read([this](const postern_event& event) { show(event); });
}

void RefusalReport::show(const postern_event& event) {
    for (auto& [slice, client] : by_slice_) {
        if (event.sandbox != client.cgroup_id) continue;
        if (event.verdict == POSTERN_DENY_STRAY) ++client.strays;
        if (client.shown++ >= kShown) return;
        tell("{}the guard refused {}: {}\n", prefix(slice), describe_call(event, {}),
             verdict_words(event.verdict));
        return;
    }
}

void RefusalReport::end(unsigned slice, uint64_t refused) {
    read();
    const auto found = by_slice_.find(slice);
    if (found == by_slice_.end()) return;
    const uint64_t sum = refused + found->second.strays;
    by_slice_.erase(found);
    if (sum == 0) return;
    tell("{}the guard refused {} call{} of the client; `postern monitor` shows them as they happen\n",
         prefix(slice), sum, sum == 1 ? "" : "s");
}

}  // namespace postern
