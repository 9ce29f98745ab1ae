// SPDX-License-Identifier: Apache-2.0
#include "launcher/grant_log.h"

#include <string>
#include <utility>

#include "broker-core/journal.h"

namespace postern {

bool GrantLog::say(Level level, const std::string& line) const {
    if (!journal_) return false;
    JournalFields fields = {{"MESSAGE", "postern: " + line},
                            {"PRIORITY", std::to_string(static_cast<int>(level))},
                            {"SYSLOG_IDENTIFIER", "postern"}};
    for (const auto& [name, value] : {std::pair{"POSTERN_GRANT", &names_.grant},
                                      {"POSTERN_DEVICE", &names_.device},
                                      {"POSTERN_SLICE", &names_.slice},
                                      {"POSTERN_PROFILE", &names_.profile}}) {
        if (!value->empty()) fields.emplace_back(name, *value);
    }
    return journal_->send(fields).has_value();
}

}  // namespace postern
