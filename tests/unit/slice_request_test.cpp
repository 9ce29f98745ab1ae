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

TEST(SliceRequest, AnAnnotationMayBeAnImages) {
    Json config = plain_config();
    config["annotations"] = {{"dev.postern.slice", "disk.1"}, {"io.container.manager", "libpod"}};
    const auto by = [&config] {
        const auto request = find_slice_request(config);
        return request && *request ? (*request)->by : Asked::ByHooks;
    };
    for (const char* old : {"1.0.2-dev", "1.1.0-rc.1", "1.0.0"}) {
        config["ociVersion"] = old;
        EXPECT_EQ(by(), Asked::ByImagePerhaps) << old;
    }
    config.erase("ociVersion");
    EXPECT_EQ(by(), Asked::ByImagePerhaps);
    config["annotations"]["io.container.manager"] = "an image's word";
    EXPECT_EQ(by(), Asked::ByImagePerhaps);
    for (const char* young : {"1.1.0", "1.2.0"}) {
        config["ociVersion"] = young;
        EXPECT_EQ(by(), Asked::ByAnnotation) << young;
    }
    config["ociVersion"] = "1.0.2-dev";
    config["annotations"].erase("io.container.manager");
    EXPECT_EQ(by(), Asked::ByAnnotation) << "whose bundle it is wrote it";
}

TEST(SliceRequest, WhatAnImageAsksForIsNothingBesideHooks) {
    Json config = with_hooks("disk.2");
    config["ociVersion"] = "1.0.2-dev";
    config["annotations"] = {{"dev.postern.slice", "disk.1"}, {"io.container.manager", "libpod"}};
    const auto request = find_slice_request(config);
    ASSERT_TRUE(request && *request);
    EXPECT_EQ((*request)->name, "disk.2");
    EXPECT_EQ((*request)->by, Asked::ByHooks);
}

TEST(SliceRequest, OnlyATrustedAnnotationIsEnough) {
    SliceRequest request{"disk.1"};
    NamedSlice slice{"disk.1", "0000:00:02.0", 1};
    for (const Asked by : {Asked::ByHooks, Asked::ByAnnotation}) {
        request.by = by;
        EXPECT_TRUE(check_who_asks(request, slice));
    }
    request.by = Asked::ByImagePerhaps;
    const auto refused = check_who_asks(request, slice);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("--device postern.dev/slice=disk.1"));
    slice.trusts_annotations = true;
    EXPECT_TRUE(check_who_asks(request, slice));
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

TEST(SliceRequest, TakesTheShimOutBehindAnInit) {
    Json config = with_hooks("disk.2");
    config["process"]["args"] = {"/dev/init", "--", "/run/postern/shim", "/bin/x", "/run/postern/shim"};
    remove_slice_edits(config);
    EXPECT_EQ(config["process"]["args"], Json({"/dev/init", "--", "/bin/x", "/run/postern/shim"}));
    // Alone it is what is to be run, as with the hooks.
    config = with_hooks("disk.2");
    config["process"]["args"] = {"/run/postern/shim"};
    remove_slice_edits(config);
    EXPECT_EQ(config["process"]["args"], Json({"/run/postern/shim"}));
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
