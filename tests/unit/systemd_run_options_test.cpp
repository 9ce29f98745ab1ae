// SPDX-License-Identifier: Apache-2.0
#include "launcher/systemd_run_options.h"

#include <gmock/gmock.h>

namespace postern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Words = std::vector<std::string>;

OptionInfo option(std::string name, Words values = {}) {
    return {{std::move(name)}, std::move(values), "", "", false};
}

const std::vector<OptionInfo>& run_options() {
    static const std::vector<OptionInfo> options = {option("--device", {"BDF"}),
                                                    option("--profile", {"NAME|FILE"}),
                                                    option("--slice", {"N"}),
                                                    option("--notify"),
                                                    option("--quiet"),
                                                    option("--json"),
                                                    option("--dry-run"),
                                                    option("--uid", {"UID"}),
                                                    option("--setenv", {"NAME", "VALUE"}),
                                                    option("--bind", {"SRC", "DEST"})};
    return options;
}

std::optional<std::string> variable(const std::string& name) {
    if (name == "LANG") return "C";
    return std::nullopt;
}

Result<SystemdRunRequest> split(const Words& words, const std::optional<Words>& rest = Words{"/bin/true"}) {
    return split_systemd_run(words, rest, run_options(), variable);
}

std::string refusal(const Words& words, const std::optional<Words>& rest = Words{"/bin/true"}) {
    const auto request = split(words, rest);
    return request ? "" : request.error().message;
}

TEST(SystemdRunOptions, GoWhereTheyBelong) {
    const auto request = split({"--unit=worker", "-p", "MemoryMax=1G", "--device", "0000:00:02.0", "--wait",
                                "--profile=p", "-PqG", "--bind", "/a", "/b", "--nice", "-5"});
    ASSERT_TRUE(request) << request.error().message;
    EXPECT_THAT(request->systemd, ElementsAre("--unit=worker", "--property=MemoryMax=1G", "--wait", "--pipe",
                                              "--quiet", "--collect", "--nice=-5"));
    EXPECT_THAT(request->postern,
                ElementsAre("--device", "0000:00:02.0", "--profile=p", "--quiet", "--bind", "/a", "/b"));
    EXPECT_THAT(request->command, ElementsAre("/bin/true"));
}

TEST(SystemdRunOptions, NumbersArePosternsAndNamesAreSystemds) {
    const auto numbers = split({"--slice", "1", "--slice=02", "--uid=1000"});
    ASSERT_TRUE(numbers);
    EXPECT_THAT(numbers->postern, ElementsAre("--slice", "1", "--slice", "02", "--uid", "1000"));
    EXPECT_THAT(numbers->systemd, IsEmpty());
    const auto names = split({"--slice", "x.slice", "--slice=1.slice", "--uid=daemon", "--gid", "games"});
    ASSERT_TRUE(names);
    EXPECT_THAT(names->systemd,
                ElementsAre("--slice=x.slice", "--slice=1.slice", "--uid=daemon", "--gid=games"));
    EXPECT_THAT(names->postern, IsEmpty());
}

TEST(SystemdRunOptions, VariablesAreTheClients) {
    const auto request = split(
        {"--setenv", "A", "-1", "--setenv=B=2=3", "--setenv", "C=4", "-ED=5", "-E", "E=", "-E", "LANG"});
    ASSERT_TRUE(request) << request.error().message;
    EXPECT_THAT(request->postern,
                ElementsAre("--setenv", "A", "-1", "--setenv", "B", "2=3", "--setenv", "C", "4", "--setenv",
                            "D", "5", "--setenv", "E", "", "--setenv", "LANG", "C"));
    EXPECT_THAT(request->systemd, IsEmpty());
    EXPECT_THAT(refusal({"-E", "NOT_SET"}), HasSubstr("NOT_SET is no variable of the caller's"));
}

TEST(SystemdRunOptions, TheCommandBeginsAtTheFirstWord) {
    const auto bare = split({"--wait", "ls", "--wait", "-l"}, std::nullopt);
    ASSERT_TRUE(bare);
    EXPECT_THAT(bare->systemd, ElementsAre("--wait"));
    EXPECT_THAT(bare->command, ElementsAre("ls", "--wait", "-l"));
    const auto both = split({"env"}, Words{"ls"});
    ASSERT_TRUE(both);
    EXPECT_THAT(both->command, ElementsAre("env", "--", "ls"));
}

TEST(SystemdRunOptions, AreRefusedInWords) {
    EXPECT_THAT(refusal({"--devise", "x"}), HasSubstr("unknown option --devise; did you mean --device?"));
    EXPECT_THAT(refusal({"--unitt=x"}), HasSubstr("did you mean --unit?"));
    EXPECT_THAT(refusal({"-x"}), HasSubstr("-x in -x"));
    EXPECT_THAT(refusal({"-S"}), HasSubstr("name the shell"));
    EXPECT_THAT(refusal({"--property"}), HasSubstr("--property: a word is missing"));
    EXPECT_THAT(refusal({"--bind", "/a"}), HasSubstr("--bind: a word is missing"));
    EXPECT_THAT(refusal({"--wait=yes"}), HasSubstr("--wait: takes no word"));
    EXPECT_THAT(refusal({"--notify=yes"}), HasSubstr("--notify: takes no word"));
    EXPECT_THAT(refusal({"--notify", "--scope"}), HasSubstr("a scope has no service manager"));
    EXPECT_THAT(refusal({"--wait"}, std::nullopt), HasSubstr("no command"));
    EXPECT_THAT(refusal({"--wait"}, Words{}), HasSubstr("no command"));
    EXPECT_EQ(refusal({"--wait"}), "");
}

Words compose(const Words& words, const Words& command = {"/bin/true"}) {
    const auto request = split(words, command);
    EXPECT_TRUE(request);
    return compose_systemd_run(*request, {"/usr/bin/postern", "/home/u", ""});
}

TEST(SystemdRunLine, DelegatesAndEndsInOrder) {
    EXPECT_THAT(
        compose({"--wait", "--quiet"}),
        ElementsAre("systemd-run", "--property=Delegate=yes", "--property=KillMode=mixed",
                    "--property=SuccessExitStatus=129 130 141 143", "--property=WorkingDirectory=-/home/u",
                    "--wait", "--quiet", "--", "/usr/bin/postern", "run", "--quiet", "--", "/bin/true"));
    // SIGTERM goes to all of a scope: it has no main process.
    EXPECT_THAT(compose({"--scope"}), ElementsAre("systemd-run", "--property=Delegate=yes", "--scope", "--",
                                                  "/usr/bin/postern", "run", "--", "/bin/true"));
}

TEST(SystemdRunLine, WaitsForAClientThatTells) {
    EXPECT_THAT(compose({"--notify", "-d"}),
                ElementsAre("systemd-run", "--property=Delegate=yes", "--property=KillMode=mixed",
                            "--property=SuccessExitStatus=129 130 141 143", "--property=Type=notify",
                            "--property=NotifyAccess=main", "--same-dir", "--", "/usr/bin/postern", "run",
                            "--notify", "--", "/bin/true"));
    EXPECT_THAT(compose({"--notify", "--service-type=notify-reload"}),
                testing::Not(testing::Contains("--property=Type=notify")));
    EXPECT_THAT(compose({"--notify", "-pType=exec"}),
                testing::Not(testing::Contains("--property=Type=notify")));
}

TEST(SystemdRunLine, KeepsTheCommandFromSystemdsVariables) {
    EXPECT_THAT(compose({}, {"sh", "-c", "echo $HOME $$"}), testing::Contains("echo $$HOME $$$$"));
    EXPECT_THAT(compose({"--scope"}, {"sh", "-c", "echo $HOME"}), testing::Contains("echo $HOME"));
    EXPECT_THAT(compose({"--expand-environment=no"}, {"sh", "-c", "echo $HOME"}),
                testing::Contains("echo $HOME"));
}

}  // namespace
}  // namespace postern
