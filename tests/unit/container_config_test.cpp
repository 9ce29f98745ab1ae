// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/container_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "oci-hook/taken_slice.h"

namespace postern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<std::string> kNames{"manifest", "device", "dma.ring"};

ContainerEdit some_edit() {
    return {"abcd", kNames, "/usr/bin/postern-oci-hook", kBrokerSocket, std::nullopt};
}

Json config_with(const char* more = "") {
    return Json::parse(
        std::string(R"({"process":{"args":["sh"],"env":["A=b","LISTEN_FDS=9","LISTEN_PID=7"]},)"
                    R"("linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]})") +
        more + "}");
}

TEST(ContainerConfig, TellsTheClientOfItsFds) {
    Json config = config_with();
    const auto edited = edit_container(config, some_edit());
    ASSERT_TRUE(edited) << edited.error().message;
    EXPECT_THAT(
        config["process"]["env"],
        ElementsAre("A=b", "LISTEN_FDS=3", "LISTEN_FDNAMES=manifest:device:dma.ring", "LISTEN_PID=1"));
    EXPECT_THAT(config["process"]["args"], ElementsAre("sh"));
    EXPECT_EQ(config["annotations"]["dev.postern.grant"], "abcd");
}

TEST(ContainerConfig, HooksOfItsOwnComeFirst) {
    Json config = config_with(R"(,"hooks":{"createRuntime":[{"path":"/bin/x"}]})");
    ContainerEdit edit = some_edit();
    edit.broker = "/run/b";
    const auto edited = edit_container(config, edit);
    ASSERT_TRUE(edited) << edited.error().message;
    const Json& enter = config["hooks"]["createRuntime"][0];
    EXPECT_EQ(enter["path"], "/usr/bin/postern-oci-hook");
    EXPECT_THAT(enter["args"],
                ElementsAre("postern-oci-hook", "enter", "--grant", "abcd", "--broker", "/run/b"));
    EXPECT_EQ(enter["env"].size(), 1U);
    EXPECT_GT(enter["timeout"], 0);
    EXPECT_EQ(config["hooks"]["createRuntime"][1]["path"], "/bin/x");
    EXPECT_EQ(config["hooks"]["poststop"][0]["args"][1], "leave");
}

TEST(ContainerConfig, AProgramInFrontFindsTheProcessId) {
    Json config = config_with();
    ContainerEdit edit = some_edit();
    edit.listen_pid = 9;
    ASSERT_TRUE(edit_container(config, edit));
    EXPECT_THAT(config["process"]["args"], ElementsAre("/proc/self/fd/9", "sh"));
}

TEST(ContainerConfig, KnowsWhoHasAPidNamespace) {
    EXPECT_TRUE(has_own_pid_namespace(config_with()));
    EXPECT_TRUE(has_own_pid_namespace(Json::parse(R"({"linux":{"namespaces":[{"type":"pid","path":""}]}})")));
    for (const char* text : {R"({"linux":{"namespaces":[{"type":"mount"}]}})", R"({"linux":{}})", "{}",
                             R"({"linux":{"namespaces":[{"type":"pid","path":"/proc/7/ns/pid"}]}})"})
        EXPECT_FALSE(has_own_pid_namespace(Json::parse(text))) << text;
}

TEST(ContainerConfig, RefusesWhatNoRuntimeWouldTake) {
    for (const char* text : {"{}", R"({"process":1})", R"({"process":{"env":{}}})",
                             R"({"process":{},"hooks":[]})", R"({"process":{},"hooks":{"poststop":{}}})"}) {
        Json config = Json::parse(text);
        EXPECT_FALSE(edit_container(config, some_edit())) << text;
    }
    Json least = Json::parse(R"({"process":{}})");
    EXPECT_TRUE(edit_container(least, some_edit()));
}

TEST(ContainerConfig, FindsTheLastOfAVariable) {
    const Json config = Json::parse(R"({"process":{"env":["A=1","AB=2","A=3","A"]}})");
    EXPECT_EQ(variable_of(config, "A"), "3");
    EXPECT_EQ(variable_of(config, "B"), std::nullopt);
    EXPECT_EQ(variable_of(Json::object(), "A"), std::nullopt);
}

TEST(ContainerConfig, NamesTheCallersFds) {
    const auto names = [](unsigned count, const char* listed) {
        const auto named = caller_names(count, listed, kNames);
        return named ? *named : std::vector<std::string>{named.error().message};
    };
    EXPECT_THAT(names(0, "x"), ElementsAre());
    EXPECT_THAT(names(2, ""), ElementsAre("unknown", "unknown"));
    EXPECT_THAT(names(3, "http:"), ElementsAre("http", "unknown", "unknown"));
    EXPECT_THAT(names(1, "http:more"), ElementsAre("http"));
    EXPECT_THAT(names(2, "x:device"),
                ElementsAre(HasSubstr("fd 4 is passed on by the caller under the name \"device\"")));
}

TEST(ContainerConfig, TheManifestHasTheNumbersThatTheClientSees) {
    const auto made = renumbered_manifest(
        R"({"postern":1,"fds":{"manifest":3,"device":4,"dma.ring":5},"slice":2})", kNames, 5);
    ASSERT_TRUE(made) << made.error().message;
    const Json manifest = Json::parse(*made);
    EXPECT_EQ(manifest["fds"], Json::parse(R"({"manifest":5,"device":6,"dma.ring":7})"));
    EXPECT_EQ(manifest["slice"], 2);
    EXPECT_FALSE(renumbered_manifest("[]", kNames, 3));
}

TEST(ContainerConfig, SaysWhoHasASlice) {
    const Json grants = Json::parse(
        R"([{"grant":"g1","device":"d","slice":1,"uid":0,"pid":7,"command":"sleep","since":"now","state":"live"},)"
        R"({"grant":"g2","device":"d","slice":2,"uid":0,"pid":8,"command":"x","since":"now","state":"ending"},)"
        R"({"grant":"g3","device":"d","slice":3,"uid":0,"pid":9,"command":"y","since":"now","state":"ending","trouble":"open"},)"
        R"({"grant":"g4","device":"other","slice":1,"state":"ending"}])");
    const SliceUse used = use_of({"disk.1", "d", 1}, grants);
    EXPECT_FALSE(used.ending);
    EXPECT_EQ(used.holders, "slice 1: pid 7 (sleep) of uid 0 since now, grant g1");
    EXPECT_TRUE(use_of({"disk.2", "d", 2}, grants).ending);
    EXPECT_FALSE(use_of({"disk.3", "d", 3}, grants).ending) << "what others hold open may take for ever";
    EXPECT_TRUE(use_of({"disk.3", "d", 3}, grants).held_up);
    EXPECT_FALSE(use_of({"disk.2", "d", 2}, grants).held_up);
    EXPECT_THAT(use_of({"disk.3", "d", 3}, grants).holders, HasSubstr("which ends: open"));
    EXPECT_TRUE(use_of({"disk", "d", std::nullopt}, grants).ending);
    EXPECT_EQ(use_of({"disk.0", "d", 0}, grants).holders, "");
}

}  // namespace
}  // namespace postern
