// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/container_state.h"

#include <gmock/gmock.h>
#include <sys/un.h>

#include <string>

#include "oci-hook/container_folder.h"

namespace postern {
namespace {

using testing::HasSubstr;

std::string refused(const std::string& text) {
    const auto state = read_container_state(text);
    return state ? "accepted" : state.error().message;
}

TEST(ContainerState, ReadsWhatRuntimesSay) {
    const auto state = read_container_state(
        R"({"ociVersion":"1.0","id":"box","pid":4711,"root":"/r","bundle":"/b","status":"created","annotations":{"a":"b"},"new":[1]})");
    ASSERT_TRUE(state) << state.error().message;
    EXPECT_EQ(state->id, "box");
    EXPECT_EQ(state->pid, 4711);
    EXPECT_EQ(state->bundle, "/b");
    // After its end there is no process.
    for (const char* const text :
         {R"({"id":"box","bundle":"/b"})", R"({"id":"box","bundle":"/b","pid":0})"}) {
        const auto ended = read_container_state(text);
        ASSERT_TRUE(ended) << ended.error().message;
        EXPECT_EQ(ended->pid, 0);
    }
}

TEST(ContainerState, RefusesWhatIsNone) {
    EXPECT_THAT(refused(""), HasSubstr("is not JSON"));
    EXPECT_THAT(refused("{\"id\":"), HasSubstr("is not JSON"));
    EXPECT_THAT(refused("[]"), HasSubstr("no JSON object"));
    EXPECT_THAT(refused(R"({"bundle":"/b"})"), HasSubstr("has no text \"id\""));
    EXPECT_THAT(refused(R"({"id":7,"bundle":"/b"})"), HasSubstr("has no text \"id\""));
    EXPECT_THAT(refused(R"({"id":"a","bundle":"b"})"), HasSubstr("relative bundle"));
    EXPECT_THAT(refused(R"({"id":"../a","bundle":"/b"})"), HasSubstr("which no runtime gives"));
    EXPECT_THAT(refused(R"({"id":"a","bundle":"/b","pid":-1})"), HasSubstr("pid"));
    EXPECT_THAT(refused(R"({"id":"a","bundle":"/b","pid":4294967297})"), HasSubstr("pid"));
    EXPECT_EQ(refused(R"({"id":"a","bundle":"/b"})"), "accepted");
}

TEST(ContainerState, FindsTheRoot) {
    EXPECT_EQ(container_root(R"({"root":{"path":"/var/box"}})", "/b").value_or(""), "/var/box");
    EXPECT_EQ(container_root(R"({"root":{"path":"rootfs"}})", "/b").value_or(""), "/b/rootfs");
    for (const char* const text : {"", "{}", R"({"root":"rootfs"})", R"({"root":{"path":""}})"}) {
        const auto root = container_root(text, "/b");
        ASSERT_FALSE(root) << text;
        EXPECT_THAT(root.error().message, HasSubstr("/b/config.json"));
    }
}

TEST(ContainerState, EachContainerHasAFolderOfItsOwn) {
    const ContainerState box{"box", 1, "/b"};
    EXPECT_EQ(container_folder_name(box), container_folder_name({"box", 2, "/b"}))
        << "its next start finds it again";
    EXPECT_NE(container_folder_name(box), container_folder_name({"box", 1, "/c"}))
        << "another runtime's of that id";
    EXPECT_NE(container_folder_name({"a.b", 1, "/b"}), container_folder_name({"a_b", 1, "/b"}));
    const std::string strange = container_folder_name({"..\n;x", 1, "/b"});
    EXPECT_EQ(strange.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-"), std::string::npos)
        << strange;
    const ContainerFolder longest({std::string(1000, 'x'), 1, std::string(4000, 'y')});
    EXPECT_LT(longest.socket_path().size(), sizeof(sockaddr_un::sun_path));
}

}  // namespace
}  // namespace postern
