// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "launcher/job_output.h"
#include "launcher/junit_report.h"
#include "launcher/pool_progress.h"
#include "launcher/pool_summary.h"

namespace postern {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using State = JobResult::State;

JobAttempt attempt(int status, std::string reason = "status", int signal = 0) {
    JobAttempt made;
    made.slice = 2;
    made.status = status;
    made.reason = std::move(reason);
    made.signal = signal;
    made.seconds = 0.25;
    return made;
}

JobResult result(unsigned number, std::vector<JobAttempt> attempts, State state) {
    JobResult made;
    made.job = {number, {"./test", "a b"}, "./test 'a b'"};
    made.attempts = std::move(attempts);
    made.state = state;
    return made;
}

PoolResult pool(std::vector<JobResult> jobs) {
    PoolResult made;
    made.profile = "demo";
    made.device = "0000:00:02.0";
    made.started = 86400;
    made.seconds = 1.5;
    made.jobs = std::move(jobs);
    made.status = pool_status(made);
    return made;
}

TEST(PoolStatus, IsTheWorstOfTheJobs) {
    EXPECT_EQ(pool({}).status, 0);
    EXPECT_EQ(pool({result(1, {attempt(0)}, State::Passed), result(2, {attempt(3)}, State::Failed),
                    result(3, {attempt(124, "time")}, State::Failed), result(4, {attempt(1)}, State::Failed)})
                  .status,
              124);
    EXPECT_EQ(pool({result(1, {attempt(127, "error")}, State::Failed),
                    result(2, {attempt(139, "signal", 11)}, State::Failed)})
                  .status,
              139);
    EXPECT_EQ(pool({result(1, {attempt(9), attempt(0)}, State::Passed), result(2, {}, State::NotRun)}).status,
              0)
        << "the last attempt counts";
}

TEST(PoolStatus, IsPosternsOwnFailureBeforeASignalBeforeTheJobs) {
    PoolResult made = pool({result(1, {attempt(255)}, State::Failed)});
    EXPECT_EQ(pool_status(made), 255);
    made.interrupted = SIGINT;
    EXPECT_EQ(pool_status(made), 130);
    made.problem = "slice 1: teardown: …";
    EXPECT_EQ(pool_status(made), 125);
}

TEST(XmlText, HoldsWhatXmlCanHold) {
    EXPECT_EQ(xml_text("a<b>&\"c\"]]>"), "a&lt;b&gt;&amp;&quot;c&quot;]]&gt;");
    EXPECT_EQ(xml_text("\t\n\r"), "&#9;&#10;&#13;");
    EXPECT_EQ(xml_text(std::string_view("\x1b[1m\0\x7f", 6)), "\xE2\x90\x9B[1m\xE2\x90\x80\xE2\x90\xA1");
    EXPECT_EQ(xml_text("\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80"), "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
    // Neither a lone byte, an overlong form, a surrogate, nor U+FFFE.
    for (const std::string_view bad : {"\xff", "\xED\xA0\x80", "\xEF\xBF\xBE", "\xEF\xBF\xBF", "\xE2\x82"})
        EXPECT_THAT(xml_text(bad), HasSubstr("\xEF\xBF\xBD"));
    EXPECT_EQ(xml_text("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(JunitReport, TellsFailuresErrorsAndSkippedApart) {
    JobResult loud = result(2, {attempt(3)}, State::Failed);
    loud.output = "\x1b[31mwrong\n";
    loud.output_size = 100;
    const std::string xml = junit_report(
        pool({result(1, {attempt(0)}, State::Passed), loud, result(3, {attempt(124, "time")}, State::Failed),
              result(4, {attempt(139, "signal", 11)}, State::Failed), result(5, {}, State::NotRun),
              result(6, {attempt(1), attempt(0)}, State::Passed)}),
        "host<1>");
    EXPECT_THAT(xml, HasSubstr("<testsuite name=\"postern.demo\" tests=\"6\" failures=\"2\" errors=\"1\" "
                               "time=\"1.500\" skipped=\"1\" timestamp=\"1970-01-02T00:00:00\" "
                               "hostname=\"host&lt;1&gt;\">"));
    EXPECT_THAT(xml, HasSubstr("name=\"./test 'a b'\" time=\"0.250\">"));
    EXPECT_THAT(xml, HasSubstr("name=\"./test 'a b' #2\""));
    EXPECT_THAT(xml, HasSubstr("<failure type=\"status\" message=\"status 3\"/>"));
    EXPECT_THAT(xml,
                HasSubstr("<system-out>[89 bytes before this are left out]&#10;\xE2\x90\x9B[31mwrong&#10;"));
    EXPECT_THAT(xml, HasSubstr("<failure type=\"time\""));
    EXPECT_THAT(xml, HasSubstr("<error type=\"signal\""));
    EXPECT_THAT(xml, HasSubstr("<skipped "));
    EXPECT_THAT(xml, HasSubstr("<flakyFailure type=\"status\" message=\"status 1\"/>"));
    EXPECT_THAT(xml, Not(HasSubstr("system-err")));
}

TEST(PoolSummary, TellsOfEachJobAndItsAttempts) {
    JobAttempt first = attempt(139, "signal", SIGSEGV);
    first.log = "logs/001-test.log";
    PoolResult made = pool({result(1, {first, attempt(0)}, State::Passed), result(2, {}, State::NotRun)});
    made.interrupted = SIGTERM;
    const Json json = pool_summary(made);
    EXPECT_EQ(json["postern"], 1);
    EXPECT_EQ(json["device"], "0000:00:02.0");
    EXPECT_EQ(json["started"], "1970-01-02T00:00:00Z");
    EXPECT_EQ(json["interrupted"], "SIGTERM");
    EXPECT_EQ(json["count"], (Json{{"jobs", 2}, {"passed", 1}, {"failed", 0}, {"not run", 1}}));
    const Json& job = json["jobs"][0];
    EXPECT_EQ(job["job"], 1);
    EXPECT_EQ(job["command"], (Json{"./test", "a b"}));
    EXPECT_EQ(job["state"], "passed");
    EXPECT_EQ(job["status"], 0);
    EXPECT_EQ(job["slice"], 2);
    EXPECT_EQ(job["attempts"].size(), 2U);
    EXPECT_EQ(job["attempts"][0]["signal"], "SIGSEGV");
    EXPECT_EQ(job["attempts"][0]["log"], "logs/001-test.log");
    EXPECT_TRUE(json["jobs"][1]["status"].is_null());
    EXPECT_EQ(json["jobs"][1]["state"], "not run");
}

TEST(LogName, IsAFileNameWhateverTheCommandIs) {
    EXPECT_EQ(log_name({7, {"/usr/bin/test-it.sh", "x"}, ""}, 1), "007-test-it.sh.log");
    EXPECT_EQ(log_name({1234, {"a b/../ü\n"}, ""}, 3), "1234-___.3.log");
    EXPECT_EQ(log_name({1, {"/"}, ""}, 1), "001-.log");
    EXPECT_EQ(log_name({1, {std::string(300, 'x')}, ""}, 1).size(), 72U);
}

TEST(ProgressLine, FitsTheTerminal) {
    EXPECT_EQ(progress_line({20, 11, 1, 4}, std::chrono::seconds(67), 80),
              "12 of 20 done, 1 failed, 4 running, 1:07");
    EXPECT_EQ(progress_line({20, 0, 0, 4}, std::chrono::seconds(7), 12), "0 of 20 done");
}

}  // namespace
}  // namespace postern
