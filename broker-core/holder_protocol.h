// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "broker-core/keeper.h"

namespace postern {

// What a broker and its postern-holder say to each other, in packets (packet.h). The holder greets whoever
// connects; then each request, one packet, gets one answer.
//
//   request                              answer
//   P name NUL text, with the fds        + , once it is kept
//   R name                               + , once it is gone or was not there
//   L name, or L alone                   E name NUL text, with the fds: the first entry behind that name
//                                        + if there is none
//   Q                                    + , and the holder ends
//   (the connection itself)              + and kHolderGreeting
//
// Instead of any of these: - errno, blank, and why.

inline constexpr char kHolderPut = 'P';
inline constexpr char kHolderRemove = 'R';
inline constexpr char kHolderList = 'L';
inline constexpr char kHolderQuit = 'Q';
inline constexpr char kHolderEntry = 'E';
inline constexpr char kHolderDone = '+';
inline constexpr char kHolderRefused = '-';
inline constexpr std::string_view kHolderGreeting = "postern-holder 1";
inline constexpr size_t kHolderPacket = 1 + kMaxKeptName + 1 + kMaxKeptText;
/// Where postern-holder finds its listening socket.
inline constexpr int kHolderListener = 3;

/// "name NUL text", as it follows the letter. Without NUL all is the name.
inline std::pair<std::string_view, std::string_view> split_entry(std::string_view packet) {
    const size_t end = packet.find('\0');
    if (end == std::string_view::npos) return {packet, {}};
    return {packet.substr(0, end), packet.substr(end + 1)};
}

inline std::string joined_entry(char letter, std::string_view name, std::string_view text) {
    std::string packet;
    packet.reserve(2 + name.size() + text.size());
    packet += letter;
    packet += name;
    packet += '\0';
    packet += text;
    return packet;
}

}  // namespace postern
