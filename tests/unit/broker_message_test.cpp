// SPDX-License-Identifier: Apache-2.0
#include "broker-core/broker_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace postern {
namespace {

using testing::HasSubstr;
using Op = BrokerRequest::Op;

std::string request_refused(std::string_view text) {
    const auto request = read_broker_request(text);
    return request ? "accepted" : request.error().message;
}

TEST(BrokerRequest, ReadsEachOperation) {
    const std::vector<std::pair<std::string, Op>> simple{
        {"devices", Op::Devices}, {"grants", Op::Grants}, {"stop", Op::Stop}};
    for (const auto& [name, op] : simple) {
        const auto request = read_broker_request(R"({"postern":1,"op":")" + name + R"("})");
        ASSERT_TRUE(request) << request.error().message;
        EXPECT_EQ(request->op, op);
    }
    const auto grant = read_broker_request(
        R"({"postern":1,"op":"grant","device":"0000:00:02.0","slice":3,"profile":"p","wait":true,"nonce":"n",)"
        R"("cgroup":{"pids.max":"10","memory.max":"max"}})");
    ASSERT_TRUE(grant) << grant.error().message;
    EXPECT_EQ(grant->op, Op::Grant);
    EXPECT_EQ(grant->device, "0000:00:02.0");
    EXPECT_EQ(grant->slice, 3U);
    EXPECT_EQ(grant->profile, "p");
    EXPECT_TRUE(grant->wait);
    EXPECT_FALSE(grant->container);
    EXPECT_EQ(grant->nonce, "n");
    EXPECT_EQ(grant->cgroup.at("pids.max"), "10");
    const auto enter = read_broker_request(R"({"postern":1,"op":"enter","grant":"g","pid":4194304})");
    ASSERT_TRUE(enter) << enter.error().message;
    EXPECT_EQ(enter->op, Op::Enter);
    EXPECT_EQ(enter->grant, "g");
    EXPECT_EQ(enter->pid, 4194304);
    const auto revoke =
        read_broker_request(R"({"postern":1,"op":"revoke","grant":"g","kill":true,"reset":true})");
    ASSERT_TRUE(revoke) << revoke.error().message;
    EXPECT_EQ(revoke->grant, "g");
    EXPECT_TRUE(revoke->kill);
    EXPECT_TRUE(revoke->reset);
}

TEST(BrokerRequest, WhatIsWrittenIsReadAgain) {
    BrokerRequest request;
    request.op = Op::Grant;
    request.device = "0000:00:02.0";
    request.slice = 2;
    request.nonce = "n";
    request.cgroup = {{"cpu.max", "100000 100000"}};
    const std::string text = write_broker_request(request);
    const auto read = read_broker_request(text);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(write_broker_request(*read), text);
    EXPECT_EQ(read->cgroup, request.cgroup);
    request.container = true;
    const auto again = read_broker_request(write_broker_request(request));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_TRUE(again->container);
    BrokerRequest enter;
    enter.op = Op::Enter;
    enter.grant = "g";
    enter.pid = 17;
    const auto entered = read_broker_request(write_broker_request(enter));
    ASSERT_TRUE(entered) << entered.error().message;
    EXPECT_EQ(entered->pid, 17);
    EXPECT_EQ(entered->grant, "g");
    // A command line need not be UTF-8, and is no reason to throw.
    request.device = "\xff\xfe";
    EXPECT_TRUE(read_broker_request(write_broker_request(request)));
}

TEST(BrokerRequest, RefusesInWords) {
    EXPECT_THAT(request_refused(""), HasSubstr("JSON syntax error"));
    EXPECT_THAT(request_refused("[]"), HasSubstr("must be an object, and is an array"));
    EXPECT_THAT(request_refused(R"({"op":"devices"})"), HasSubstr("postern: is missing"));
    EXPECT_THAT(request_refused(R"({"postern":2,"op":"devices"})"), HasSubstr("version must be 1"));
    EXPECT_THAT(request_refused(R"({"postern":1.0,"op":"devices"})"), HasSubstr("version must be 1"));
    EXPECT_THAT(request_refused(R"({"postern":1})"), HasSubstr("\"op\" is missing"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"device"})"), HasSubstr("did you mean \"devices\"?"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":7})"), HasSubstr("must be a string"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"devices","kill":true})"), HasSubstr("unknown key"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"devices","op":"stop"})"), HasSubstr("stands twice"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"revoke"})"), HasSubstr("\"grant\" is missing"));
    EXPECT_EQ(request_refused(R"({"postern":1,"op":"enter","grant":"g","pid":1})"),
              "accepted");  // the control
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"enter","pid":1})"), HasSubstr("\"grant\" is missing"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"enter","grant":"g"})"), HasSubstr("pid"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"enter","grant":"g","pid":0})"), HasSubstr("pid"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"enter","grant":"g","pid":4194305})"),
                HasSubstr("out of range"));
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"enter","grant":"g","pid":1,"nonce":"n"})"),
                HasSubstr("unknown key"));
    const std::string grant = R"({"postern":1,"op":"grant","device":"x","nonce":"n")";
    EXPECT_EQ(request_refused(grant + "}"), "accepted");  // the control of what follows
    EXPECT_THAT(request_refused(R"({"postern":1,"op":"grant","device":"x"})"),
                HasSubstr("\"nonce\" is missing"));
    EXPECT_THAT(request_refused(grant + R"(,"slice":4096})"), HasSubstr("out of range"));
    EXPECT_THAT(request_refused(grant + R"(,"slice":-1})"), HasSubstr("a negative number"));
    EXPECT_THAT(request_refused(grant + R"(,"wait":1})"), HasSubstr("must be true or false"));
    EXPECT_THAT(request_refused(grant + R"(,"cgroup":[]})"), HasSubstr("must be an object"));
    EXPECT_THAT(request_refused(grant + R"(,"cgroup":{"cgroup.procs":"1"}})"), HasSubstr("nothing else"));
    EXPECT_THAT(request_refused(grant + R"(,"cgroup":{"../pids.max":"1"}})"), HasSubstr("nothing else"));
    EXPECT_THAT(request_refused(grant + R"(,"cgroup":{"pids.max":"1\n"}})"), HasSubstr("numbers or \"max\""));
    EXPECT_THAT(request_refused(grant + R"(,"cgroup":{"pids.max":")" + std::string(65, '1') + "\"}}"),
                HasSubstr("numbers or \"max\""));
    EXPECT_EQ(request_refused(grant + R"(,"cgroup":{"pids.max":"1"}})"), "accepted");
}

TEST(BrokerRequest, QuotesOneShortLine) {
    for (const std::string& text :
         {R"({"postern":1,"op":")" + std::string(8000, 'a') + "\"}",
          R"({"postern":1,"op":"devices",")" + std::string(8000, 'k') + "\":1}",
          std::string(R"({"postern":1,"op":"a\nb\u001b[31m\u007f"})"), std::string(8192, '['),
          std::string("{\"postern\":1,\"op\":\"\xff\"}"), std::string(R"({"\n":1,"\n":2})"),
          R"({"postern":1,"op":)" + std::string(8000, '9') + "}"}) {
        const std::string words = request_refused(text);
        EXPECT_NE(words, "accepted");
        EXPECT_LE(words.size(), kMaxQuoted);
        EXPECT_EQ(one_line(words), words);
    }
}

TEST(OneLine, IsShortAndWhole) {
    EXPECT_EQ(one_line("as it is, ü too"), "as it is, ü too");
    EXPECT_EQ(one_line("a\nb\x1b[0m\x7f"), "a?b?[0m?");
    EXPECT_EQ(one_line(std::string(kMaxQuoted, 'a')), std::string(kMaxQuoted, 'a'));
    for (size_t shift = 0; shift < 4; ++shift) {
        std::string text(shift, 'a');
        while (text.size() <= kMaxQuoted) text += "€";
        const std::string line = one_line(text);
        EXPECT_LE(line.size(), kMaxQuoted);
        EXPECT_TRUE(line.ends_with("€…")) << line;
    }
}

TEST(BrokerReply, ReadsAnswersAndRefusals) {
    auto reply = read_broker_reply(broker_answer({{"devices", Json::array()}}));
    ASSERT_TRUE(reply);
    EXPECT_FALSE(reply->refusal);
    EXPECT_TRUE(reply->answer.at("devices").empty());
    for (const BrokerRefusal kind : {BrokerRefusal::BadRequest, BrokerRefusal::Denied, BrokerRefusal::Busy,
                                     BrokerRefusal::NotFound, BrokerRefusal::Failed}) {
        reply = read_broker_reply(broker_refusal(kind, "no\n\xff"));
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->refusal, kind);
        EXPECT_EQ(reply->message, "no?\xef\xbf\xbd");
    }
    reply = read_broker_reply(R"({"postern":1,"error":{"kind":"of later","message":"m"}})");
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->refusal, BrokerRefusal::Failed);
    reply = read_broker_reply(broker_greeting("abc"));
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->answer.at("nonce"), "abc");
    for (const char* text : {"", "[]", "{}", R"({"postern":1,"error":1})", R"({"postern":1,"error":{}})",
                             R"({"postern":1,"error":{"kind":1,"message":"m"}})"})
        EXPECT_FALSE(read_broker_reply(text)) << text;
}

}  // namespace
}  // namespace postern
