// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "broker-core/journal.h"

namespace postern {

/// What is known of a grant where lines about it are written. Empty: there is none of that.
struct GrantNames {
    std::string grant;
    std::string device;
    std::string slice;
    std::string profile;
};

/// Lines about a client with the grant it has, as fields of the journal: POSTERN_GRANT, POSTERN_DEVICE,
/// POSTERN_SLICE, POSTERN_PROFILE. Only where stderr is the journal: elsewhere there are no fields.
class GrantLog {
  public:
    enum class Level { Warning = 4, Info = 6 };  ///< syslog(3)'s

    explicit GrantLog(GrantNames names) : names_(std::move(names)), journal_(Journal::behind_stderr()) {}

    /// False: it was not written.
    bool say(Level level, const std::string& line) const;

  private:
    GrantNames names_;
    std::optional<Journal> journal_;
};

}  // namespace postern
