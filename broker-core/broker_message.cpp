// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_message.h"

#include <algorithm>
#include <array>

namespace postern {
namespace {

constexpr std::array<std::string_view, 6> kOps{"devices", "grant", "enter", "grants", "revoke", "stop"};
constexpr std::array<std::string_view, 5> kRefusals{"bad-request", "denied", "busy", "not-found", "failed"};
/// What a caller may have set in a cgroup below its own: limits, which only ever hold it tighter.
constexpr std::array<std::string_view, 6> kLimits{"memory.max", "memory.high", "memory.swap.max",
                                                  "pids.max",   "cpu.max",     "cpu.weight"};

void read_limits(ObjectReader& reader, BrokerRequest& request) {
    const Json* limits = reader.find("cgroup");
    if (limits == nullptr) return;
    const std::string path = reader.path_of("cgroup");
    if (!limits->is_object()) {
        reader.set_error(path, fmt::format("must be an object, and is {}", json_type(*limits)));
        return;
    }
    for (const auto& [file, value] : limits->items()) {
        if (std::find(kLimits.begin(), kLimits.end(), file) == kLimits.end()) {
            reader.set_error(path, fmt::format("a broker sets {}, and nothing else in a cgroup",
                                               fmt::join(kLimits, ", ")));
        } else if (!value.is_string() || value.get_ref<const std::string&>().size() > 64 ||
                   value.get_ref<const std::string&>().find_first_not_of("0123456789 max") !=
                       std::string::npos) {
            reader.set_error(fmt::format("{}.{}", path, file), "must be a string with numbers or \"max\"");
        } else {
            request.cgroup[file] = value.get<std::string>();
        }
    }
}

void read_grant(ObjectReader& reader, BrokerRequest& request) {
    request.device = reader.string("device", true);
    if (reader.find("slice") != nullptr)
        request.slice = static_cast<unsigned>(reader.integer_in("slice", 0, 4095, 0));
    request.profile = reader.string("profile");
    request.wait = reader.boolean("wait", false);
    request.container = reader.boolean("container", false);
    request.nonce = reader.string("nonce", true);
    read_limits(reader, request);
}

Failure one_line(const Error& error) {
    return Failure(Error{postern::one_line(error.message), error.errnum});
}

Result<Json> parse_versioned(std::string_view text) {
    auto parsed = parse_json(text);
    if (!parsed) return one_line(parsed.error());
    Json document = std::move(*parsed);
    if (!document.is_object()) return fail("the message must be an object, and is {}", json_type(document));
    const auto version = document.find("postern");
    if (version == document.end())
        return fail("postern: is missing; this is version {} of the protocol", kBrokerProtocol);
    if (!version->is_number_unsigned() || *version != kBrokerProtocol)
        return fail("postern: the protocol's version must be {}", kBrokerProtocol);
    return document;
}

}  // namespace

std::string one_line(std::string_view text) {
    constexpr std::string_view kMore = "…";
    std::string line(text.substr(0, kMaxQuoted));
    if (text.size() > kMaxQuoted) {
        line.resize(kMaxQuoted - kMore.size());
        // Not in the middle of a character of UTF-8.
        while (!line.empty() && (static_cast<unsigned char>(line.back()) & 0xc0) == 0x80) line.pop_back();
        if (!line.empty() && static_cast<unsigned char>(line.back()) >= 0xc0) line.pop_back();
        line += kMore;
    }
    std::replace_if(
        line.begin(), line.end(),
        [](char letter) { return static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f; }, '?');
    return line;
}

Result<BrokerRequest> read_broker_request(std::string_view text) {
    POSTERN_ASSIGN(const Json document, parse_versioned(text));
    BrokerRequest request;
    JsonReading reading;
    ObjectReader reader(document, "", reading);
    (void)reader.find("postern");
    const std::string op = reader.string("op", true);
    const auto* const found = std::find(kOps.begin(), kOps.end(), op);
    if (!reader.failed() && found == kOps.end())
        reader.set_error("op",
                         fmt::format("there is no \"{}\"; did you mean \"{}\"?", op, nearest(op, kOps)));
    if (reader.failed()) return one_line(*reading.error);
    request.op = static_cast<BrokerRequest::Op>(found - kOps.begin());
    switch (request.op) {
        case BrokerRequest::Op::Grant:
            read_grant(reader, request);
            break;
        case BrokerRequest::Op::Enter:
            request.grant = reader.string("grant", true);
            // PID_MAX_LIMIT of a 64-bit machine.
            request.pid = static_cast<pid_t>(reader.integer_in("pid", 1, 1 << 22, 0));
            if (request.pid == 0) reader.set_error("pid", "is missing: of the container's first process");
            break;
        case BrokerRequest::Op::Revoke:
            request.grant = reader.string("grant", true);
            request.kill = reader.boolean("kill", false);
            request.reset = reader.boolean("reset", false);
            break;
        case BrokerRequest::Op::Stop:
            request.kill = reader.boolean("kill", false);
            break;
        case BrokerRequest::Op::Devices:
        case BrokerRequest::Op::Grants:
            break;
    }
    reader.finish();
    if (reading.error) return one_line(*reading.error);
    return request;
}

std::string write_broker_request(const BrokerRequest& request) {
    Json document{{"postern", kBrokerProtocol}, {"op", kOps[static_cast<size_t>(request.op)]}};
    if (request.op == BrokerRequest::Op::Grant) {
        document["device"] = request.device;
        document["nonce"] = request.nonce;
    }
    if (request.op == BrokerRequest::Op::Revoke || request.op == BrokerRequest::Op::Enter)
        document["grant"] = request.grant;
    if (request.op == BrokerRequest::Op::Enter) document["pid"] = request.pid;
    if (request.slice) document["slice"] = *request.slice;
    if (!request.profile.empty()) document["profile"] = request.profile;
    if (request.wait) document["wait"] = true;
    if (request.container) document["container"] = true;
    if (!request.cgroup.empty()) document["cgroup"] = request.cgroup;
    if (request.kill) document["kill"] = true;
    if (request.reset) document["reset"] = true;
    // A command line need not be UTF-8.
    return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string broker_greeting(std::string_view nonce) {
    return Json{{"postern", kBrokerProtocol}, {"broker", POSTERN_VERSION}, {"nonce", nonce}}.dump();
}

std::string broker_refusal(BrokerRefusal kind, std::string_view message) {
    // A message may quote what a caller sent, which need not be UTF-8.
    return Json{{"postern", kBrokerProtocol},
                {"error", {{"kind", kRefusals[static_cast<size_t>(kind)]}, {"message", one_line(message)}}}}
        .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string broker_answer(Json answer) {
    answer["postern"] = kBrokerProtocol;
    return answer.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<BrokerReply> read_broker_reply(std::string_view text) {
    POSTERN_ASSIGN(Json document, parse_versioned(text));
    BrokerReply reply;
    if (const auto error = document.find("error"); error != document.end()) {
        if (!error->is_object()) return fail("error: must be an object, and is {}", json_type(*error));
        const auto kind = error->find("kind");
        const auto message = error->find("message");
        if (kind == error->end() || !kind->is_string() || message == error->end() || !message->is_string())
            return fail("error: has no kind and message");
        const auto* const found = std::find(kRefusals.begin(), kRefusals.end(), kind->get<std::string>());
        reply.refusal = found == kRefusals.end() ? BrokerRefusal::Failed
                                                 : static_cast<BrokerRefusal>(found - kRefusals.begin());
        reply.message = one_line(message->get_ref<const std::string&>());
    }
    reply.answer = std::move(document);
    return reply;
}

}  // namespace postern
