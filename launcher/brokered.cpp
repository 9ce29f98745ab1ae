// SPDX-License-Identifier: Apache-2.0
#include "launcher/brokered.h"

#include <unistd.h>

#include <cerrno>

#include "broker-core/broker_config.h"
#include "broker-core/pci.h"

namespace postern {
namespace {

Result<std::optional<BrokerPlace>> ask(const std::string& socket, const std::string& bdf) {
    POSTERN_ASSIGN(const BrokerClient::Answer answer, ask_broker(socket, {}));
    if (answer.reply.refusal) return fail("{}", answer.reply.message);
    const auto devices = answer.reply.answer.find("devices");
    if (devices == answer.reply.answer.end() || !devices->is_array())
        return fail("its answer has no devices");
    for (const Json& each : *devices) {
        if (each.is_object() && each.value("device", "") == bdf)
            return BrokerPlace{socket, each.value("profile", "")};
    }
    return std::optional<BrokerPlace>();
}

bool means_absent(const Error& error) {
    return error.errnum == ENOENT || error.errnum == ECONNREFUSED || error.errnum == ENOTDIR;
}

}  // namespace

Result<std::optional<BrokerReply>> ask_usual_broker(const BrokerRequest& request) {
    auto answer = ask_broker(kBrokerSocket, request);
    if (!answer && means_absent(answer.error())) return std::optional<BrokerReply>();
    if (!answer) return propagate(std::move(answer), fmt::format("broker {}", kBrokerSocket));
    return std::move(answer->reply);
}

Result<std::optional<BrokerPlace>> find_broker(const std::string& wanted, const std::string& device) {
    if (wanted == "none" || device.empty()) return std::optional<BrokerPlace>();
    POSTERN_ASSIGN(const std::string bdf, parse_bdf(device));
    const bool is_named = wanted != "auto";
    const std::string socket = is_named ? wanted : kBrokerSocket;
    const bool must = is_named || ::geteuid() != 0;
    auto found = ask(socket, bdf);
    if (!found) {
        // Without one, launchers are their own broker, and tell what they lack for that.
        if (!is_named && means_absent(found.error())) return std::optional<BrokerPlace>();
        return propagate(std::move(found), "broker " + socket);
    }
    if (!*found && must) {
        return fail("broker {}: uid {} may use no device {} of its; an administrator allows it in {}", socket,
                    ::geteuid(), bdf, kBrokerConfig);
    }
    return found;
}

BrokerRequest grant_request(const Profile& profile, const std::string& bdf, std::optional<unsigned> slice,
                            bool wait) {
    BrokerRequest request;
    request.op = BrokerRequest::Op::Grant;
    request.device = bdf;
    request.slice = slice;
    request.profile = profile.name;
    request.wait = wait;
    request.cgroup = profile.sandbox.cgroup;
    return request;
}

}  // namespace postern
