// SPDX-License-Identifier: Apache-2.0
#include "broker-core/passed_fds.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>

namespace postern {
namespace {

std::optional<int> fd_number(std::string_view text) {
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
    return number;
}

std::optional<int> number_in(const char* variable) {
    const char* text = std::getenv(variable);
    return text != nullptr ? fd_number(text) : std::nullopt;
}

Result<int> find_by_name(const std::string& name) {
    const char* names = std::getenv("LISTEN_FDNAMES");
    if (names == nullptr || number_in("LISTEN_PID") != ::getpid()) {
        return fail(
            "fd \"{}\": postern was passed no named fds (LISTEN_FDNAMES, LISTEN_PID; sd_listen_fds(3)); pass "
            "it with systemd's OpenFile=, or give its number",
            name);
    }
    const int count = number_in("LISTEN_FDS").value_or(0);
    std::stringstream list{std::string(names)};
    std::string each;
    for (int i = 0; i < count && std::getline(list, each, ':'); ++i) {
        if (each == name) return kFirstFd + i;
    }
    return fail("fd \"{}\": is not among those that postern was passed (LISTEN_FDNAMES is \"{}\")", name,
                names);
}

}  // namespace

Result<int> find_passed_fd(const std::string& name) {
    const std::optional<int> number = fd_number(name);
    if (!number) return find_by_name(name);
    if (*number < kFirstFd) {
        return fail(
            "fd {}: 0, 1 and 2 are the client's standard input, output and errors; pass the file as 3 or "
            "above",
            *number);
    }
    if (::fcntl(*number, F_GETFD) < 0) return fail("fd {}: is not open; start postern with it", *number);
    return *number;
}

}  // namespace postern
