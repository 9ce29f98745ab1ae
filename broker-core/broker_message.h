// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "broker-core/json_reader.h"
#include "broker-core/result.h"

// The protocol of docs/broker.md: what callers and the broker say to each other. Pure.

namespace postern {

inline constexpr const char* kBrokerSocket = "/run/postern-broker/socket";
inline constexpr unsigned kBrokerProtocol = 1;
/// Bytes of one message at the most; a longer one is refused whole.
inline constexpr size_t kMaxBrokerRequest = 8192;
inline constexpr size_t kMaxBrokerReply = 1 << 18;

struct BrokerRequest {
    enum class Op { Devices, Grant, Enter, Grants, Revoke, Stop };
    Op op = Op::Devices;
    std::string device;             ///< Grant: PCI address
    std::optional<unsigned> slice;  ///< Grant: this one; without, any
    std::string profile;            ///< Grant: refuse if the broker has the device under another; empty: any
    bool wait = false;              ///< Grant: until a slice is free
    bool container = false;         ///< Grant: for a container that this process makes; see Enter
    std::map<std::string, std::string> cgroup;  ///< Grant: limits of the client's cgroup, file → value
    std::string grant;                          ///< Enter, Revoke
    pid_t pid = 0;                              ///< Enter: of the container's first process
    bool kill = false;                          ///< Revoke, Stop
    bool reset = false;                         ///< Revoke
    std::string nonce;                          ///< Grant: of the greeting
};

/// What may quote somebody else, as one line that a terminal can show: control characters are question marks,
/// and of a long text only the beginning is there.
[[nodiscard]] std::string one_line(std::string_view text);
inline constexpr size_t kMaxQuoted = 512;

/// Reads a request. Whatever the text is, the answer is a request or one line of what is wrong with it.
[[nodiscard]] Result<BrokerRequest> read_broker_request(std::string_view text);
[[nodiscard]] std::string write_broker_request(const BrokerRequest& request);

/// Why the broker says no, for programs.
enum class BrokerRefusal { BadRequest, Denied, Busy, NotFound, Failed };

/// `nonce`: what a grant must be asked for with. Whoever knows it sent its message after the greeting.
[[nodiscard]] std::string broker_greeting(std::string_view nonce);
[[nodiscard]] std::string broker_refusal(BrokerRefusal kind, std::string_view message);
[[nodiscard]] std::string broker_answer(Json answer);

struct BrokerReply {
    Json answer;
    std::optional<BrokerRefusal> refusal;
    std::string message;  ///< of a refusal
};
/// What a client reads of a reply or greeting. Error: it is none.
[[nodiscard]] Result<BrokerReply> read_broker_reply(std::string_view text);

}  // namespace postern
