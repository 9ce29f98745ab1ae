// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "broker-core/guard.h"
#include "broker-core/guard_listener.h"
#include "launcher/supervisor.h"

namespace postern {

/// Says on stderr what the guard refuses to the clients of this launcher: the first calls of each client as
/// they happen, and how many there were when it has ended. Nothing where there are none.
class RefusalReport {
  public:
    enum class Clients { One, Many };

    /// With many clients each line says which slice it is about.
    RefusalReport(Supervisor& supervisor, Clients clients) : supervisor_(supervisor), clients_(clients) {}
    RefusalReport(const RefusalReport&) = delete;
    RefusalReport& operator=(const RefusalReport&) = delete;
    ~RefusalReport();

    /// The client of `slice`, in the sandbox with this cgroup, is about to start; what its file was refused
    /// before was its proof.
    void begin(Guard& guard, unsigned slice, uint64_t cgroup_id);
    /// It has ended; `refused`: what the guard has counted on its files.
    void end(unsigned slice, uint64_t refused);

  private:
    struct Client {
        uint64_t cgroup_id = 0;
        unsigned shown = 0;
        uint64_t strays = 0;  ///< refusals on other files than its own, which its files do not count
    };

    void listen(Guard& guard, uint64_t cgroup_id);
    void read();
    void show(const postern_event& event);
    [[nodiscard]] std::string prefix(unsigned slice) const;

    Supervisor& supervisor_;
    Clients clients_;
    bool tried_ = false;
    std::optional<GuardListener>
        listener_;  ///< empty: too many listen already, so that there is only the count
    std::map<unsigned, Client> by_slice_;
};

}  // namespace postern
