// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/slice_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "oci-hook/cdi_spec.h"

namespace postern {
namespace {

using testing::HasSubstr;

const HookPlace kPlace{"/usr/bin/postern-oci-hook", "/usr/libexec/postern/container", kBrokerSocket,
                       kBrokerConfig};

Json plain_config() {
    return Json::parse(
        R"({"process":{"args":["sh","-c","x"]},"mounts":[{"destination":"/proc","type":"proc"}],)"
        R"("hooks":{"createRuntime":[{"path":"/bin/true"}]}})");
}

Json with_hooks(const std::string& name, const HookPlace& place = kPlace) {
    Json config = plain_config();
    add_slice_edits(config, name, place);
    return config;
}

std::string asked(const Json& config) {
    const auto request = find_slice_request(config);
    if (!request) return request.error().message;
    return *request ? (*request)->name : "nothing";
}

TEST(SliceRequest, FindsAnAnnotation) {
    Json config = plain_config();
    EXPECT_EQ(asked(config), "nothing");
    config["annotations"] = {{"dev.postern.slice", "disk.1"}, {"x", "y"}};
    EXPECT_EQ(asked(config), "disk.1");
    for (const Json& wrong : {Json(1), Json(nullptr), Json("a b"), Json("")}) {
        config["annotations"]["dev.postern.slice"] = wrong;
        EXPECT_THAT(asked(config), HasSubstr("is not the name of a slice")) << wrong;
    }
}

TEST(SliceRequest, FindsWhatCdiHasPutThere) {
    const auto usual = find_slice_request(with_hooks("disk.2"));
    ASSERT_TRUE(usual) << usual.error().message;
    ASSERT_TRUE(*usual);
    EXPECT_EQ((*usual)->name, "disk.2");
    EXPECT_EQ((*usual)->broker, kBrokerSocket);
    HookPlace place = kPlace;
    place.broker = "/run/b";
    place.config = "/etc/d";
    const auto own = find_slice_request(with_hooks("disk", place));
    ASSERT_TRUE(own) << own.error().message;
    ASSERT_TRUE(*own);
    EXPECT_EQ((*own)->broker, "/run/b");
    EXPECT_EQ((*own)->config, "/etc/d");
}

TEST(SliceRequest, BothMayNameTheSame) {
    Json config = with_hooks("disk.2");
    config["annotations"]["dev.postern.slice"] = "disk.2";
    EXPECT_EQ(asked(config), "disk.2");
    config["annotations"]["dev.postern.slice"] = "disk.1";
    EXPECT_THAT(asked(config), HasSubstr("slices disk.1 and disk.2 are both asked for"));
    config = with_hooks("disk.2");
    add_slice_edits(config, "disk.3", kPlace);
    EXPECT_THAT(asked(config), HasSubstr("are both asked for"));
    config = with_hooks("disk.2");
    add_slice_edits(config, "disk.2", kPlace);
    EXPECT_EQ(asked(config), "disk.2");
}

TEST(SliceRequest, AHookThatCannotBeReadIsAnError) {
    Json config = with_hooks("disk.2");
    config["hooks"]["createRuntime"][1]["args"].push_back("--new");
    EXPECT_THAT(asked(config), HasSubstr("unknown option --new"));
    config["hooks"]["createRuntime"][1]["args"][3] = 7;
    EXPECT_THAT(asked(config), HasSubstr("not all text"));
    // Other programs' hooks are nobody's business.
    config = with_hooks("disk.2");
    for (const char* stage : {"createRuntime", "poststop"})
        for (Json& hook : config["hooks"][stage]) hook["path"] = "/bin/other";
    EXPECT_EQ(asked(config), "nothing");
}

TEST(SliceRequest, NoShapeIsTooStrange) {
    for (const char* text :
         {"[]", "1", R"({"hooks":1})", R"({"hooks":{"createRuntime":{}}})", R"({"annotations":[]})",
          R"({"hooks":{"createRuntime":[1,{"path":1},{"path":"/x/postern-oci-hook","args":{}}]}})"})
        EXPECT_EQ(asked(Json::parse(text)), "nothing") << text;
}

TEST(SliceRequest, TakesOutWhatCdiHasPutThere) {
    Json config = with_hooks("disk.2");
    config["process"]["args"].insert(config["process"]["args"].begin(), "/run/postern/shim");
    remove_slice_edits(config);
    Json plain = plain_config();
    plain["hooks"]["poststop"] = Json::array();
    EXPECT_EQ(config, plain);
    EXPECT_EQ(asked(config), "nothing");
}

TEST(SliceRequest, LeavesTheUsersOwnAlone) {
    Json config = plain_config();
    config["mounts"].push_back({{"destination", "/run/postern"}, {"source", "/mine"}});
    config["process"]["args"] = {"/run/postern/shim", "x"};
    config["annotations"]["dev.postern.slice"] = "disk.1";
    const Json before = config;
    remove_slice_edits(config);
    EXPECT_EQ(config, before);
}

}  // namespace
}  // namespace postern
