// SPDX-License-Identifier: Apache-2.0
// The specification of CDI, the same edits of a config.json, and what `postern check` says of what it finds.
#include "oci-hook/cdi_spec.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "broker-core/file.h"
#include "launcher/cdi_state.h"
#include "oci-hook/hook_commands.h"
#include "oci-hook/slice_request.h"

namespace postern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::vector<NamedSlice> kNames{{"disk", "0000:00:02.0", std::nullopt}, {"disk.0", "0000:00:02.0", 0}};

HookPlace place() {
    return {"/usr/bin/postern-oci-hook", "/usr/libexec/postern/container", kBrokerSocket, kBrokerConfig};
}

TEST(CdiSpec, HasADeviceForEachName) {
    const Json spec = cdi_spec(kNames, place());
    EXPECT_EQ(spec.at("cdiVersion"), "0.5.0");
    EXPECT_EQ(spec.at("kind"), "postern.dev/slice");
    EXPECT_FALSE(spec.contains("annotations"));
    ASSERT_EQ(spec.at("devices").size(), 2U);
    EXPECT_EQ(spec.at("devices")[0].at("name"), "disk");
    EXPECT_EQ(spec.at("devices")[1].at("name"), "disk.0");
}

TEST(CdiSpec, HooksSayAllThatTheyNeed) {
    const Json spec = cdi_spec(kNames, place());
    const Json& hooks = spec.at("devices")[1].at("containerEdits").at("hooks");
    ASSERT_EQ(hooks.size(), 2U);
    for (const char* const stage : {"createRuntime", "poststop"}) {
        const Json& hook = hooks[stage == std::string("poststop") ? 1 : 0];
        EXPECT_EQ(hook.at("hookName"), stage);
        EXPECT_EQ(hook.at("path"), "/usr/bin/postern-oci-hook");
        EXPECT_EQ(hook.at("args"), Json({"postern-oci-hook", stage, "--slice", "disk.0"}));
        ASSERT_EQ(hook.at("env").size(), 1U);
        EXPECT_THAT(hook.at("env")[0].get<std::string>(), testing::StartsWith("PATH=/"));
        EXPECT_GT(hook.at("timeout"), 0);
    }
    const Json& mount = spec.at("containerEdits").at("mounts").at(0);
    EXPECT_EQ(mount.at("hostPath"), "/usr/libexec/postern/container");
    EXPECT_EQ(mount.at("containerPath"), "/run/postern");
    EXPECT_EQ(mount.at("options"), Json({"bind", "ro", "nosuid", "nodev"}));
}

TEST(CdiSpec, AnotherBrokerIsAnArgument) {
    HookPlace other = place();
    other.broker = "/run/b/socket";
    other.config = "/etc/b";
    const Json spec = cdi_spec(kNames, other);
    const Json& words = spec.at("devices")[1].at("containerEdits").at("hooks")[0].at("args");
    EXPECT_EQ(words, Json({"postern-oci-hook", "createRuntime", "--slice", "disk.0", "--broker",
                           "/run/b/socket", "--config", "/etc/b"}));
    const auto read = read_hook_options(Json(words).get<std::vector<std::string>>());
    EXPECT_FALSE(read) << "the program's name and the command are no options";
    const auto options = read_hook_options({words.begin() + 2, words.end()});
    ASSERT_TRUE(options) << options.error().message;
    EXPECT_EQ(options->slice, "disk.0");
    EXPECT_EQ(options->broker, "/run/b/socket");
    EXPECT_EQ(options->config, "/etc/b");
}

TEST(HookOptions, RefusesWhatItDoesNotKnow) {
    const auto refused = [](const std::vector<std::string>& words, HookSubject subject = HookSubject::Slice) {
        const auto options = read_hook_options(words, subject);
        return options ? "accepted" : options.error().message;
    };
    EXPECT_THAT(refused({}), HasSubstr("--slice"));
    EXPECT_THAT(refused({"--slice"}), HasSubstr("needs a value"));
    EXPECT_THAT(refused({"--slice", "a b"}), HasSubstr("name of a slice"));
    EXPECT_THAT(refused({"--slice", "a", "--sliec", "b"}), HasSubstr("unknown option --sliec"));
    EXPECT_THAT(refused({"--slice", "a"}, HookSubject::Nothing), HasSubstr("unknown option --slice"));
    EXPECT_EQ(refused({"--slice", "a"}), "accepted");
    EXPECT_EQ(refused({}, HookSubject::Nothing), "accepted");
    EXPECT_THAT(refused({}, HookSubject::Grant), HasSubstr("--grant is missing"));
    EXPECT_THAT(refused({"--slice", "disk.0"}, HookSubject::Grant), HasSubstr("unknown option --slice"));
    EXPECT_THAT(refused({"--grant", "a", "--slice"}), HasSubstr("unknown option --grant"));
    EXPECT_EQ(refused({"--grant", "a", "--config", "/c"}, HookSubject::Grant), "accepted");
}

Status anybody(const SliceRequest&) {
    return {};
}

TEST(Precreate, AsksWhoAsks) {
    const auto made = [](const std::string& config, bool by_image) {
        const auto edited = precreate(config, place(), [&](const SliceRequest& request) -> Status {
            EXPECT_EQ(request.by == Asked::ByImagePerhaps, by_image);
            return by_image ? Status(fail("not so")) : Status();
        });
        return edited ? "accepted" : edited.error().message;
    };
    const std::string asks = R"("annotations":{"dev.postern.slice":"a","io.container.manager":"libpod"})";
    EXPECT_EQ(made("{\"ociVersion\":\"1.0.2-dev\"," + asks + "}", true), "not so");
    EXPECT_EQ(made("{\"ociVersion\":\"1.1.0\"," + asks + "}", false), "accepted");
}

TEST(Precreate, WhatCdiHasPutThereIsEnough) {
    Json config = Json::parse(R"({"annotations":{"dev.postern.slice":"disk.0"}})");
    add_slice_edits(config, "disk.0", place());
    EXPECT_EQ(precreate(config.dump(), place(), anybody).value_or("refused"), config.dump());
}

TEST(Precreate, LeavesOthersAlone) {
    for (const char* const text : {"{ \"ociVersion\" : \"1.0\" }\n", R"({"annotations":{"a":"b"},"hooks":7})",
                                   R"({"annotations":null})"})
        EXPECT_EQ(precreate(text, place(), anybody).value_or("refused"), text);
}

TEST(Precreate, MakesTheEditsOfTheSpecification) {
    const auto text = precreate(
        R"({"annotations":{"dev.postern.slice":"disk.0"},"hooks":{"poststop":[{"path":"/other"}]},"mounts":[{"destination":"/proc"}],"x":1})",
        place(), anybody);
    ASSERT_TRUE(text) << text.error().message;
    const Json config = Json::parse(*text);
    const Json spec = cdi_spec(kNames, place());
    EXPECT_EQ(config.at("x"), 1);
    for (const char* const stage : {"createRuntime", "poststop"}) {
        const bool last = stage == std::string("poststop");
        Json expected = spec.at("devices")[1].at("containerEdits").at("hooks")[last ? 1 : 0];
        expected.erase("hookName");
        EXPECT_EQ(config.at("hooks").at(stage).back(), expected);
    }
    EXPECT_EQ(config.at("hooks").at("poststop")[0].at("path"), "/other");
    ASSERT_EQ(config.at("mounts").size(), 2U);
    const Json& mount = config.at("mounts")[1];
    EXPECT_EQ(mount.at("destination"), "/run/postern");
    EXPECT_EQ(mount.at("source"), "/usr/libexec/postern/container");
    EXPECT_EQ(mount.at("options"), spec.at("containerEdits").at("mounts")[0].at("options"));
    // Without hooks or mounts of its own it gets them.
    const auto bare = precreate(R"({"annotations":{"dev.postern.slice":"disk"}})", place(), anybody);
    ASSERT_TRUE(bare) << bare.error().message;
    EXPECT_EQ(Json::parse(*bare).at("mounts").size(), 1U);
}

TEST(Precreate, RefusesWhatItCannotEdit) {
    const auto refused = [](const std::string& text) {
        const auto edited = precreate(text, place(), anybody);
        return edited ? "accepted" : edited.error().message;
    };
    EXPECT_THAT(refused("{"), HasSubstr("no JSON object"));
    EXPECT_THAT(refused(R"({"annotations":{"dev.postern.slice":"a b"}})"), HasSubstr("dev.postern.slice"));
    EXPECT_THAT(refused(R"({"annotations":{"dev.postern.slice":7}})"), HasSubstr("dev.postern.slice"));
    EXPECT_THAT(refused(R"({"annotations":{"dev.postern.slice":"a"},"hooks":[]})"),
                HasSubstr("hooks or mounts"));
    EXPECT_THAT(refused(R"({"annotations":{"dev.postern.slice":"a"},"mounts":{}})"),
                HasSubstr("hooks or mounts"));
    EXPECT_THAT(refused(R"({"annotations":{"dev.postern.slice":"a"},"hooks":{"poststop":7}})"),
                HasSubstr("poststop"));
}

// ---- postern check ----

std::vector<CdiFile> files(const Json& spec, const std::string& path = "/etc/cdi/postern.json") {
    std::vector<CdiFile> list;
    list.push_back({path, spec});
    return list;
}

TEST(CdiCheck, IsContentWithWhatIsRight) {
    const Json spec = cdi_spec(kNames, place());
    const Requirement line = check_cdi(files(spec), spec, true, place());
    EXPECT_TRUE(line.met);
    EXPECT_EQ(line.found, "/etc/cdi/postern.json");
    EXPECT_THAT(line.mend, IsEmpty());
    EXPECT_TRUE(check_cdi({}, Json(), true, place()).met) << "nothing is configured, and nothing is there";
}

TEST(CdiCheck, FindsWhatIsMissing) {
    const Requirement line = check_cdi({}, cdi_spec(kNames, place()), true, place());
    EXPECT_FALSE(line.met);
    EXPECT_TRUE(line.optional) << "a machine without containers needs none";
    EXPECT_THAT(line.mend, HasSubstr("postern cdi generate -o /etc/cdi/postern.json"));
}

TEST(CdiCheck, FindsWhatIsStale) {
    const Json spec = cdi_spec(kNames, place());
    const auto says = [&](const Json& found, const Result<Json>& expected) {
        const Requirement line = check_cdi(files(found), expected, true, place());
        EXPECT_FALSE(line.met);
        EXPECT_FALSE(line.optional);
        EXPECT_FALSE(line.mend.empty());
        return line.found;
    };
    EXPECT_THAT(says(cdi_spec({kNames.data(), 1}, place()), spec), HasSubstr("lacks disk.0"));
    EXPECT_THAT(says(spec, cdi_spec({kNames.data(), 1}, place())), HasSubstr("has disk.0, which"));
    EXPECT_THAT(says(spec, Json()), HasSubstr("no device is configured"));
    HookPlace other = place();
    other.program = "/opt/hook";
    EXPECT_THAT(says(cdi_spec(kNames, other), spec),
                HasSubstr("/opt/hook, and not /usr/bin/postern-oci-hook"));
    Json changed = spec;
    changed["devices"][0]["containerEdits"]["hooks"][0]["timeout"] = 1;
    EXPECT_THAT(says(changed, spec), HasSubstr("by hand"));
    EXPECT_THAT(says(Json{{"kind", kCdiKind}, {"devices", 7}}, spec), HasSubstr("lacks disk"));
}

/// One that was made with options is judged by them, and mended with them.
TEST(CdiCheck, KnowsAnotherBrokerAndConfiguration) {
    HookPlace other = place();
    other.broker = "/run/other/socket";
    other.config = "/srv/devices.d";
    const Json spec = cdi_spec(kNames, other);
    const HookPlace found = cdi_place(files(spec), place());
    EXPECT_EQ(found.broker, other.broker);
    EXPECT_EQ(found.config, other.config);
    EXPECT_EQ(found.program, other.program);
    EXPECT_TRUE(check_cdi(files(spec), cdi_spec(kNames, found), true, found).met);
    EXPECT_THAT(check_cdi(files(spec), cdi_spec({kNames.data(), 1}, found), true, found).mend,
                HasSubstr("--broker /run/other/socket --config /srv/devices.d"));
    EXPECT_EQ(cdi_place(files(Json{{"kind", kCdiKind}}), place()).config, place().config);
    EXPECT_EQ(cdi_place({}, place()).config, place().config);
}

TEST(CdiCheck, FindsWhatCannotWork) {
    const Json spec = cdi_spec(kNames, place());
    const Requirement gone = check_cdi(files(spec), spec, false, place());
    EXPECT_FALSE(gone.met);
    EXPECT_THAT(gone.found, HasSubstr("/usr/bin/postern-oci-hook, which is not there"));
    std::vector<CdiFile> twice = files(spec);
    twice.push_back({"/run/cdi/slices.json", spec});
    EXPECT_THAT(check_cdi(twice, spec, true, place()).mend, HasSubstr("rm /run/cdi/slices.json"));
    const Result<Json> broken = fail("devices.d: broken");
    EXPECT_THAT(check_cdi(files(spec), broken, true, place()).found, HasSubstr("devices.d: broken"));
}

TEST(CdiCheck, FindsItsFilesByKindAndBrokenOnesByName) {
    const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / ("cdi-" + random_id());
    std::filesystem::create_directory(folder);
    const auto write = [&](const char* name, const std::string& text) {
        std::ofstream(folder / name) << text;
    };
    write("other.json", R"({"kind":"vendor.com/gpu","devices":[]})");
    write("broken.json", "{");
    write("slices.json", cdi_text(cdi_spec(kNames, place())));
    write("postern.json", "{");
    const std::string where = folder.string();
    const std::vector<const char*> folders{where.c_str(), "/no/such/folder"};
    const std::vector<CdiFile> found = find_cdi_files(folders);
    std::vector<std::string> names;
    for (const CdiFile& each : found) names.push_back(each.path.substr(where.size() + 1));
    EXPECT_THAT(names, ElementsAre("postern.json", "slices.json"));
    ASSERT_EQ(found.size(), 2U);
    EXPECT_FALSE(found[0].spec);
    ASSERT_TRUE(found[1].spec);
    EXPECT_EQ(*found[1].spec, cdi_spec(kNames, place()));
    EXPECT_THAT(check_cdi(found, cdi_spec(kNames, place()), true, place()).found,
                HasSubstr("postern.json cannot be read"));
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace postern
