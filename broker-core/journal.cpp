// SPDX-License-Identifier: Apache-2.0
#include "broker-core/journal.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "broker-core/packet.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {
namespace {

constexpr const char* kSocket = "/run/systemd/journal/socket";

}  // namespace

bool is_journal_stream(std::string_view stream, unsigned long device, unsigned long inode) {
    return stream == fmt::format("{}:{}", device, inode);
}

std::string encode_journal_entry(const JournalFields& fields) {
    std::string entry;
    for (const auto& [name, value] : fields) {
        entry += name;
        if (value.find('\n') == std::string::npos) {
            entry += '=';
        } else {
            // Of several lines: the length first, 64 bits, little endian.
            entry += '\n';
            for (unsigned shift = 0; shift < 64; shift += 8)
                entry += static_cast<char>(static_cast<std::uint64_t>(value.size()) >> shift & 0xffU);
        }
        entry += value;
        entry += '\n';
    }
    return entry;
}

std::optional<Journal> Journal::behind_stderr() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat status = {};
    if (stream == nullptr || ::fstat(STDERR_FILENO, &status) != 0 ||
        !is_journal_stream(stream, status.st_dev, status.st_ino)) {
        return std::nullopt;
    }
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, kSocket, sizeof address.sun_path - 1);
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return std::nullopt;
    return Journal(std::move(socket));
}

Status Journal::send(const JournalFields& fields) const {
    return send_packet(socket_.get(), encode_journal_entry(fields), {}, MSG_DONTWAIT);
}

}  // namespace postern
