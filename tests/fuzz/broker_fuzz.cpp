// SPDX-License-Identifier: Apache-2.0
// Any bytes are a request or a reply of the broker's protocol, or one short line of what is wrong with them;
// what is accepted is written and read again as the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "broker-core/broker_message.h"

namespace {

void expect(bool fulfilled) {
    if (!fulfilled) std::abort();
}

void expect_line(const std::string& line) {
    expect(!line.empty() && line.size() <= postern::kMaxQuoted && postern::one_line(line) == line);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto request = postern::read_broker_request(text)) {
        const std::string written = postern::write_broker_request(*request);
        const auto again = postern::read_broker_request(written);
        expect(again.has_value() && again->op == request->op);
        expect(postern::write_broker_request(*again) == written);
    } else {
        expect_line(request.error().message);
    }
    if (const auto reply = postern::read_broker_reply(text)) {
        expect(postern::one_line(reply->message) == reply->message);
    } else {
        expect_line(reply.error().message);
    }
    // Whatever a refusal quotes, its receiver can read.
    const auto told =
        postern::read_broker_reply(postern::broker_refusal(postern::BrokerRefusal::Denied, text));
    expect(told && told->refusal == postern::BrokerRefusal::Denied);
    return 0;
}
