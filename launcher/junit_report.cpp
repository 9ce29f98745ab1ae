// SPDX-License-Identifier: Apache-2.0
#include "launcher/junit_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <map>

#include "launcher/utf8.h"

namespace postern {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

void append_escaped(std::string& to, char c) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&') {
        to += "&amp;";
    } else if (c == '<') {
        to += "&lt;";
    } else if (c == '>') {
        to += "&gt;";
    } else if (c == '"') {
        to += "&quot;";
    } else if (c == '\t' || c == '\n' || c == '\r') {
        // As they are, an attribute would lose them all and content the carriage return.
        to += c == '\n' ? "&#10;" : c == '\t' ? "&#9;" : "&#13;";
    } else if (byte < 0x20 || byte == 0x7F) {
        // The control pictures, U+2400 and on; DEL's is U+2421.
        to += "\xE2\x90";
        to += static_cast<char>(byte == 0x7F ? 0xA1 : 0x80 + byte);
    } else {
        to += c;
    }
}

bool is_error(const JobAttempt& attempt) {
    return attempt.reason != "status" && attempt.reason != "time";
}

std::string describe(const JobAttempt& attempt) {
    if (!attempt.message.empty()) return attempt.message;
    return fmt::format("status {}", attempt.status);
}

std::string element(std::string_view name, const JobAttempt& attempt) {
    return fmt::format("      <{} type=\"{}\" message=\"{}\"/>\n", name, xml_text(attempt.reason),
                       xml_text(describe(attempt)));
}

std::string test_case(const JobResult& result, const std::string& name, const std::string& suite) {
    using State = JobResult::State;
    double seconds = 0;
    for (const JobAttempt& each : result.attempts) seconds += each.seconds;
    std::string text = fmt::format("    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3f}\">\n",
                                   xml_text(suite), xml_text(name), seconds);
    const bool passed = result.state == State::Passed;
    for (size_t i = 0; i + 1 < result.attempts.size(); ++i) {
        const JobAttempt& earlier = result.attempts[i];
        const std::string_view what = is_error(earlier) ? "Error" : "Failure";
        text += fmt::format("      <{}{} type=\"{}\" message=\"{}\"/>\n", passed ? "flaky" : "rerun", what,
                            xml_text(earlier.reason), xml_text(describe(earlier)));
    }
    if (result.state == State::NotRun)
        text += "      <skipped message=\"the pool ended before it could run\"/>\n";
    if (result.state == State::Failed && result.last() != nullptr)
        text += element(is_error(*result.last()) ? "error" : "failure", *result.last());
    if (!result.output.empty()) {
        const std::string left_out = result.output_size > result.output.size()
                                         ? fmt::format("[{} bytes before this are left out]\n",
                                                       result.output_size - result.output.size())
                                         : "";
        text += fmt::format("      <system-out>{}</system-out>\n", xml_text(left_out + result.output));
    }
    return text + "    </testcase>\n";
}

}  // namespace

std::string xml_text(std::string_view text) {
    std::string escaped;
    escaped.reserve(text.size());
    while (!text.empty()) {
        std::size_t bad = 0;
        const std::size_t length = utf8_sequence(text, bad);
        const std::string_view sequence = text.substr(0, length);
        if (length == 1) {
            append_escaped(escaped, text.front());
        } else if (length == 0 || sequence == "\xEF\xBF\xBE" || sequence == "\xEF\xBF\xBF") {
            escaped += kReplacement;  // U+FFFE and U+FFFF are no characters of XML's either
        } else {
            escaped += sequence;
        }
        text.remove_prefix(length == 0 ? bad : length);
    }
    return escaped;
}

std::string junit_report(const PoolResult& pool, std::string_view hostname) {
    using State = JobResult::State;
    const std::string suite = "postern." + pool.profile;
    std::map<std::string, unsigned> seen;
    std::string cases;
    unsigned errors = 0;
    for (const JobResult& each : pool.jobs) {
        // Cases of one name would be one case.
        const unsigned times = ++seen[each.job.text];
        const std::string name = times == 1 ? each.job.text : fmt::format("{} #{}", each.job.text, times);
        cases += test_case(each, name, suite);
        errors += each.state == State::Failed && each.last() != nullptr && is_error(*each.last()) ? 1 : 0;
    }
    const std::string counts =
        fmt::format("tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{:.3f}\"", pool.jobs.size(),
                    pool.count(State::Failed) - errors, errors, pool.seconds);
    std::string text = fmt::format(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<testsuites name=\"postern pool\" {}>\n"
        "  <testsuite name=\"{}\" {} skipped=\"{}\" timestamp=\"{:%Y-%m-%dT%H:%M:%S}\" hostname=\"{}\">\n",
        counts, xml_text(suite), counts, pool.count(State::NotRun),
        fmt::gmtime(static_cast<std::time_t>(pool.started)), xml_text(hostname));
    text += cases;
    if (!pool.problem.empty())
        text += fmt::format("    <system-err>{}</system-err>\n", xml_text(pool.problem));
    return text + "  </testsuite>\n</testsuites>\n";
}

}  // namespace postern
