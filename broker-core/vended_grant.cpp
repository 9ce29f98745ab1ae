// SPDX-License-Identifier: Apache-2.0
#include "broker-core/vended_grant.h"

#include <array>
#include <cstdint>

namespace postern {
namespace {

/// In front of the names; postern.h has the same. Numbers are the machine's own: both ends run on it.
struct VendedHeader {
    std::array<char, 8> magic{'p', 'o', 's', 't', 'e', 'r', 'n', '\0'};
    uint32_t version = 1;
    uint32_t names = 0;  ///< bytes that follow: "manifest:device:…", in the order of the fds
};
static_assert(sizeof(VendedHeader) == 16);

}  // namespace

std::string vended_header(const std::vector<NamedFd>& fds) {
    std::string names;
    for (const NamedFd& each : fds) {
        if (!names.empty()) names += ':';
        names += each.name;
    }
    VendedHeader header;
    header.names = static_cast<uint32_t>(names.size());
    std::string text(reinterpret_cast<const char*>(&header), sizeof header);
    return text.append(names);
}

}  // namespace postern
