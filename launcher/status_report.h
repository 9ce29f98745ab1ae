// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/exit_reason.h"
#include "launcher/sandbox.h"

namespace postern {

/// What `postern run` tells other programs of its client, in JSON with bubblewrap's members and some of ours:
/// through --info-fd one object when the client runs, through --json-status-fd a line then and another at the
/// end.
class StatusReport {
  public:
    /// Takes the caller's fds over: they are closed with the last word, and no program that postern starts
    /// has them (0, 1 and 2, which all share, stay as they are). Error: one is not open, or not for writing.
    [[nodiscard]] static Result<StatusReport> open(std::optional<int> info, std::optional<int> status);

    /// Whether anybody wants to be told.
    [[nodiscard]] bool is_wanted() const { return info_.number >= 0 || status_.number >= 0; }

    /// A client and where it runs.
    struct Started {
        const RunningClient* client = nullptr;
        Namespaces namespaces;  ///< those of its own
        std::string cgroup;     ///< empty: the launcher's
        std::string grant;      ///< empty: none
        /// "child-pid" is the client's and not init's, whose files in /proc are closed to the caller.
        bool child_is_client = false;
    };
    /// A reader that is gone does not end the client: that is told on stderr.
    void started(const Started& what);
    /// --info-fd alone, before the client begins: of a sandbox whose user namespace the reader is to map.
    void tell_early(pid_t init, const Namespaces& own);
    void ended(int exit_code, const ExitReason& reason);

  private:
    struct Target {
        const char* option = "";
        int number = -1;
        UniqueFd owned;
    };

    StatusReport() = default;
    static Status take(Target& target, std::optional<int> fd);
    static void tell(Target& target, const std::string& text);
    static void close(Target& target);

    Target info_{.option = "--info-fd", .number = -1, .owned = {}};
    Target status_{.option = "--json-status-fd", .number = -1, .owned = {}};
};

}  // namespace postern
