// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// Fields of one entry, "MESSAGE" among them; names as in systemd.journal-fields(7).
using JournalFields = std::vector<std::pair<std::string, std::string>>;

/// systemd's journal by its native protocol, since libsystemd.a does not exist
/// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
class Journal {
  public:
    /// The journal, if it is what stderr goes to ($JOURNAL_STREAM, systemd.exec(5)): then a line is written
    /// either there, without fields, or here.
    [[nodiscard]] static std::optional<Journal> behind_stderr();

    /// Sends one entry; never waits. Error: it was not sent.
    [[nodiscard]] Status send(const JournalFields& fields) const;

  private:
    explicit Journal(UniqueFd socket) : socket_(std::move(socket)) {}

    UniqueFd socket_;
};

/// The entry as it is sent.
[[nodiscard]] std::string encode_journal_entry(const JournalFields& fields);

/// Whether `stream` ("DEVICE:INODE", decimal) names the file of these numbers.
[[nodiscard]] bool is_journal_stream(std::string_view stream, unsigned long device, unsigned long inode);

}  // namespace postern
