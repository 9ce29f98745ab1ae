// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

namespace postern::hostile {
namespace {

constexpr const char* kRed = "\033[31m";
constexpr const char* kGreen = "\033[32m";
constexpr const char* kYellow = "\033[33m";
constexpr const char* kBold = "\033[1m";
constexpr const char* kPlain = "\033[0m";

struct Summary {
    size_t refused = 0, allowed = 0, not_tried = 0, inherent = 0, granted = 0, otherwise = 0, errors = 0,
           broken = 0, controls = 0, outside = 0;
    bool passed = true;
};

Summary summarize(std::span<const Finding> findings, const Target& target) {
    Summary summary;
    for (const Finding& finding : findings) {
        switch (finding.verdict) {
            case Verdict::Refused:
                ++summary.refused;
                break;
            case Verdict::Allowed:
                ++summary.allowed;
                break;
            case Verdict::Otherwise:
                ++summary.otherwise;
                break;
            case Verdict::Inherent:
                ++summary.inherent;
                break;
            case Verdict::Error:
                ++summary.errors;
                break;
            case Verdict::NotTried:
                ++summary.not_tried;
                break;
            case Verdict::Granted:
                ++summary.granted;
                break;
        }
        if (finding.control == ControlState::Works) ++summary.controls;
        if (finding.control == ControlState::Outside) ++summary.outside;
        if (finding.control == ControlState::Broken) ++summary.broken;
        summary.passed = summary.passed && is_expected(finding, target);
    }
    return summary;
}

std::string errno_name(int errnum) {
    const char* name = strerrorname_np(errnum);
    return name == nullptr ? std::to_string(errnum) : name;
}

/// EPERM, SIGSYS, or nothing.
std::string reason(const Outcome& outcome) {
    if (outcome.timed_out) return "timeout";
    if (outcome.signal != 0) {
        const char* name = sigabbrev_np(outcome.signal);
        return name == nullptr ? fmt::format("signal {}", outcome.signal) : fmt::format("SIG{}", name);
    }
    return outcome.attempt.errnum == 0 ? "" : errno_name(outcome.attempt.errnum);
}

const char* word(Verdict verdict) {
    switch (verdict) {
        case Verdict::Refused:
            return "refused";
        case Verdict::Allowed:
            return "ALLOWED";
        case Verdict::Otherwise:
            return "DENIED OTHERWISE";
        case Verdict::Inherent:
            return "inherent";
        case Verdict::Error:
            return "ERROR";
        case Verdict::NotTried:
            return "not tried";
        case Verdict::Granted:
            return "granted";
    }
    return "";
}

const char* word(ControlState control) {
    switch (control) {
        case ControlState::Works:
            return "ok";
        case ControlState::Outside:
            return "outside";
        case ControlState::Broken:
            return "BROKEN";
        case ControlState::Unneeded:
            return "-";
    }
    return "";
}

std::string verdict_text(const Finding& finding) {
    const std::string why = reason(finding.outcome);
    return why.empty() ? word(finding.verdict) : fmt::format("{} {}", word(finding.verdict), why);
}

const char* colour_of(const Finding& finding, const Target& target) {
    if (!is_expected(finding, target)) return kRed;
    return finding.verdict == Verdict::NotTried || finding.verdict == Verdict::Inherent ? kYellow : kGreen;
}

/// Lines that explain a finding below its row; empty for the ordinary ones.
std::string remarks(const Finding& finding, const Target& target) {
    std::string text;
    const std::string& detail = finding.outcome.attempt.detail;
    if (finding.verdict == Verdict::Inherent)
        text += fmt::format("{:>15}{}\n", "", finding.probe->inherent_why);
    const bool speaks = finding.verdict == Verdict::NotTried || !is_expected(finding, target);
    if (speaks && !detail.empty()) text += fmt::format("{:>15}{}\n", "", detail);
    if (finding.control == ControlState::Broken) {
        text += fmt::format("{:>15}control: {}: {} {}\n", "", finding.probe->control.what,
                            reason(finding.control_outcome), finding.control_outcome.attempt.detail);
    }
    return text;
}

std::string closing_line(const Summary& summary, size_t count) {
    std::string line = fmt::format("{} probes: {} refused, {} allowed, {} not tried", count, summary.refused,
                                   summary.allowed, summary.not_tried);
    if (summary.granted > 0) line += fmt::format(", {} granted", summary.granted);
    if (summary.inherent > 0) line += fmt::format(", {} refused to everybody", summary.inherent);
    if (summary.otherwise > 0) line += fmt::format(", {} denied otherwise", summary.otherwise);
    if (summary.errors > 0) line += fmt::format(", {} in error", summary.errors);
    if (summary.broken > 0) line += fmt::format("; {} controls broken", summary.broken);
    return line;
}

/// Once more what should not have been, where somebody looks who sees the end of a long log; else empty.
std::string unexpected_line(std::span<const Finding> findings, const Target& target) {
    std::string line;
    for (const Finding& finding : findings) {
        if (is_expected(finding, target)) continue;
        line += fmt::format("{} {} ({}{})", line.empty() ? "not as expected:" : ",", finding.probe->name,
                            verdict_text(finding),
                            finding.control == ControlState::Broken ? ", control BROKEN" : "");
    }
    return line.empty() ? line : line + "\n";
}

}  // namespace

std::string as_table(std::span<const Finding> findings, const Target& target, bool colour) {
    size_t name_width = 5, what_width = 5, verdict_width = 7;
    for (const Finding& finding : findings) {
        name_width = std::max(name_width, finding.probe->name.size());
        what_width = std::max(what_width, finding.probe->what.size());
        verdict_width = std::max(verdict_width, verdict_text(finding).size());
    }
    const auto paint = [colour](const char* escape, std::string text) {
        return colour ? fmt::format("{}{}{}", escape, text, kPlain) : text;
    };
    std::string out =
        paint(kBold, fmt::format("{:<12} {:<{}}  {:<{}}  {:<{}}  {}", "GROUP", "PROBE", name_width, "TRIED",
                                 what_width, "VERDICT", verdict_width, "CONTROL")) +
        "\n";
    std::string group;
    for (const Finding& finding : findings) {
        const Probe& probe = *finding.probe;
        out += fmt::format("{:<12} {:<{}}  {:<{}}  ", probe.group == group ? "" : probe.group, probe.name,
                           name_width, probe.what, what_width);
        out += paint(colour_of(finding, target), fmt::format("{:<{}}", verdict_text(finding), verdict_width));
        out += fmt::format("  {}\n", word(finding.control));
        out += remarks(finding, target);
        group = probe.group;
    }
    const Summary summary = summarize(findings, target);
    out += fmt::format("\ncontrols: {} work in here, {} can only be shown outside (--expect allowed)\n",
                       summary.controls, summary.outside);
    out += unexpected_line(findings, target);
    out += paint(summary.passed ? kGreen : kRed, closing_line(summary, findings.size())) + "\n";
    return out;
}

std::string as_json(std::span<const Finding> findings, const Target& target) {
    nlohmann::ordered_json probes = nlohmann::ordered_json::array();
    for (const Finding& finding : findings) {
        nlohmann::ordered_json entry{{"name", finding.probe->name},
                                     {"group", finding.probe->group},
                                     {"what", finding.probe->what},
                                     {"verdict", word(finding.verdict)},
                                     {"reason", reason(finding.outcome)},
                                     {"detail", finding.outcome.attempt.detail},
                                     {"control", word(finding.control)},
                                     {"control_what", finding.probe->control.what},
                                     {"expected", is_expected(finding, target)}};
        if (finding.control == ControlState::Outside || finding.control == ControlState::Broken) {
            entry["control_reason"] = reason(finding.control_outcome);
        }
        if (finding.verdict == Verdict::Inherent) entry["inherent"] = finding.probe->inherent_why;
        probes.push_back(std::move(entry));
    }
    const Summary summary = summarize(findings, target);
    const nlohmann::ordered_json document{
        {"expect", target.outside ? "allowed" : "refused"},
        {"device", target.bdf},
        {"probes", std::move(probes)},
        {"summary",
         {{"probes", findings.size()},
          {"refused", summary.refused},
          {"allowed", summary.allowed},
          {"not_tried", summary.not_tried},
          {"granted", summary.granted},
          {"inherent", summary.inherent},
          {"denied_otherwise", summary.otherwise},
          {"errors", summary.errors},
          {"controls_ok", summary.controls},
          {"controls_outside", summary.outside},
          {"controls_broken", summary.broken}}},
        {"passed", summary.passed},
    };
    // A detail may hold any bytes of a path.
    return document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string as_list(const Probes& probes) {
    std::string out;
    for (const Probe& probe : probes) {
        out += fmt::format("{:<12} {:<28} {}\n", probe.group, probe.name, probe.what);
    }
    return out;
}

}  // namespace postern::hostile
