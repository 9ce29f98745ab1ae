// SPDX-License-Identifier: Apache-2.0
#include "launcher/systemd_run_options.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/json_reader.h"
#include "broker-core/result.h"
#include "launcher/command_tree.h"

namespace postern {
namespace {

using Words = std::vector<std::string>;

constexpr SystemdRunOption kOptions[] = {
    {"--property", 'p', "NAME=VALUE", "set a property of the unit"},
    {"--unit", 'u', "NAME", "name of the unit"},
    {"--scope", '\0', "", "a scope: in the caller's environment, not a service of the manager's"},
    {"--user", '\0', "", "ask the user's own service manager"},
    {"--system", '\0', "", "ask the system's service manager"},
    {"--wait", '\0', "", "wait for the end; the client's status"},
    {"--pipe", 'P', "", "pass the caller's standard input, output and errors on"},
    {"--pty", 't', "", "a pseudo terminal for the client"},
    {"--pty-late", 'T', "", "a pseudo terminal that is taken only when the client runs"},
    {"--collect", 'G', "", "forget the unit even if it failed"},
    {"--description", '\0', "TEXT", "description of the unit"},
    {"--slice", '\0', "UNIT|N", "a number: slice of the device; a name: slice unit of systemd's"},
    {"--slice-inherit", '\0', "", "the slice unit is below the caller's"},
    {"--expand-environment", '\0', "BOOL", "expand variables in the command"},
    {"--remain-after-exit", 'r', "", "the service stays active after its end"},
    {"--send-sighup", '\0', "", "send SIGHUP when stopping"},
    {"--service-type", '\0', "TYPE", "type of the service; notify with --notify"},
    {"--uid", '\0', "USER|UID", "a number: id inside the sandbox; a name: user of the unit"},
    {"--gid", '\0', "GROUP|GID", "a number: id inside the sandbox; a name: group of the unit"},
    {"--nice", '\0', "N", "nice level"},
    {"--working-directory", '\0', "DIR", "working folder of the unit; the caller's without"},
    {"--same-dir", 'd', "", "the caller's working folder, which must be there"},
    {"--same-root-dir", 'R', "", "the caller's root folder"},
    {"--root-directory", '\0', "DIR", "root folder of the unit"},
    {"--setenv", 'E', "NAME[=VALUE]", "set a variable of the client's, to the caller's value without one"},
    {"--quiet", 'q', "", "say less"},
    {"--verbose", 'v', "", "show the unit's log"},
    {"--background", '\0', "COLOR", "background of the terminal"},
    {"--on-active", '\0', "TIME", "start it later: seconds from now"},
    {"--on-boot", '\0', "TIME", "… seconds after boot"},
    {"--on-startup", '\0', "TIME", "… seconds after the manager's start"},
    {"--on-unit-active", '\0', "TIME", "… seconds after its last start"},
    {"--on-unit-inactive", '\0', "TIME", "… seconds after its last end"},
    {"--on-calendar", '\0', "SPEC", "… at times of the calendar"},
    {"--on-timezone-change", '\0', "", "… when the time zone changes"},
    {"--on-clock-change", '\0', "", "… when the clock jumps"},
    {"--path-property", '\0', "NAME=VALUE", "set a property of the path unit"},
    {"--socket-property", '\0', "NAME=VALUE", "set a property of the socket unit"},
    {"--timer-property", '\0', "NAME=VALUE", "set a property of the timer unit"},
    {"--no-block", '\0', "", "do not wait for the start"},
    {"--job-mode", '\0', "MODE", "what becomes of other jobs"},
    {"--ignore-failure", '\0', "", "a failure of the command is none"},
    {"--no-ask-password", '\0', "", "do not ask for passwords"},
    {"--host", 'H', "HOST", "the manager of another machine"},
    {"--machine", 'M', "CONTAINER", "the manager of a container"},
    {"--capsule", 'C', "NAME", "the manager of a capsule"},
};

/// One at a time, the options before the command.
class Splitter {
  public:
    Splitter(const Words& words, const std::vector<OptionInfo>& run_options,
             const std::function<std::optional<std::string>(const std::string&)>& variable)
        : words_(words), run_options_(run_options), variable_(variable) {}

    Result<SystemdRunRequest> split(const std::optional<Words>& rest) {
        while (at_ < words_.size() && words_[at_].size() > 1 && words_[at_].starts_with('-')) {
            const std::string& word = words_[at_];
            POSTERN_TRY(word.starts_with("--") ? take_long(word) : take_letters(word));
        }
        const auto first = words_.begin() + static_cast<std::ptrdiff_t>(at_);
        request_.command.assign(first, words_.end());
        // What stands behind the command is its own, a "--" too.
        if (rest && !request_.command.empty()) request_.command.emplace_back("--");
        if (rest) request_.command.insert(request_.command.end(), rest->begin(), rest->end());
        POSTERN_TRY(check());
        return std::move(request_);
    }

  private:
    /// The word that an option has after "=" or as the next one.
    Result<std::string> word_of(const std::string& name, const std::optional<std::string>& inside) {
        if (inside) return *inside;
        if (at_ >= words_.size()) return fail("{}: a word is missing behind it", name);
        return words_[at_++];
    }

    Status take_long(const std::string& word) {
        ++at_;
        const std::size_t equals = word.find('=');
        const std::string name = word.substr(0, equals);
        std::optional<std::string> inside;
        if (equals != std::string::npos) inside = word.substr(equals + 1);
        if (name == "--setenv") return take_variable(inside);
        if (name == "--slice" || name == "--uid" || name == "--gid") return take_shared(name, inside);
        if (name == "--dry-run" || name == "--json") {
            (name == "--json" ? request_.json : request_.dry_run) = true;
            return inside ? fail("{}: takes no word", name) : Status();
        }
        const auto* const known =
            std::find_if(std::begin(kOptions), std::end(kOptions),
                         [&](const SystemdRunOption& each) { return each.name == name; });
        if (known != std::end(kOptions)) return take_systemd(*known, inside);
        return take_postern(name, word, inside.has_value());
    }

    /// "-tq", "-pNAME=VALUE", "-p NAME=VALUE"
    Status take_letters(const std::string& word) {
        ++at_;
        for (std::size_t i = 1; i < word.size(); ++i) {
            if (word[i] == 'S')
                return fail("-S: a shell for systemd-run; name the shell as the command: -t … -- /bin/sh");
            const auto* const known =
                std::find_if(std::begin(kOptions), std::end(kOptions),
                             [&](const SystemdRunOption& each) { return each.letter == word[i]; });
            if (known == std::end(kOptions)) {
                return fail(
                    "-{} in {}: is no option of systemd-run that is passed on; see `postern systemd-run "
                    "--help`",
                    word[i], word);
            }
            std::optional<std::string> inside;
            if (!known->word.empty() && i + 1 < word.size()) inside = word.substr(i + 1);
            POSTERN_TRY(known->letter == 'E' ? take_variable(inside) : take_systemd(*known, inside));
            if (!known->word.empty()) break;
        }
        return {};
    }

    Status take_systemd(const SystemdRunOption& option, const std::optional<std::string>& inside) {
        const std::string name(option.name);
        if (option.word.empty()) {
            if (inside) return fail("{}: takes no word", name);
            request_.systemd.push_back(name);
            if (name == "--scope") request_.is_scope = true;
            if (name == "--same-dir") request_.has_folder = true;
            if (name == "--quiet") request_.postern.push_back(name);
            return {};
        }
        POSTERN_ASSIGN(const std::string value, word_of(name, inside));
        request_.systemd.push_back(name + "=" + value);
        if (name == "--service-type" || (name == "--property" && value.starts_with("Type=")))
            request_.has_type = true;
        if (name == "--working-directory" || name == "--host" || name == "--machine" ||
            (name == "--property" && value.starts_with("WorkingDirectory="))) {
            request_.has_folder = true;
        }
        if (name == "--expand-environment") request_.expands = true;
        return {};
    }

    Status take_postern(const std::string& name, const std::string& word, bool has_word) {
        const auto known =
            std::find_if(run_options_.begin(), run_options_.end(), [&](const OptionInfo& each) {
                return std::find(each.names.begin(), each.names.end(), name) != each.names.end();
            });
        if (known == run_options_.end()) return unknown(name);
        request_.postern.push_back(word);
        if (name == "--notify") request_.notify = true;
        const std::size_t count = known->values.size();
        if (has_word && count == 0) return fail("{}: takes no word", name);
        for (std::size_t i = has_word ? 1 : 0; i < count; ++i) {
            POSTERN_ASSIGN(std::string value, word_of(name, std::nullopt));
            request_.postern.push_back(std::move(value));
        }
        return {};
    }

    Status take_shared(const std::string& name, const std::optional<std::string>& inside) {
        POSTERN_ASSIGN(const std::string value, word_of(name, inside));
        const bool is_number = !value.empty() && value.find_first_not_of("0123456789") == std::string::npos;
        if (is_number) {
            request_.postern.push_back(name);
            request_.postern.push_back(value);
        } else {
            request_.systemd.push_back(name + "=" + value);
        }
        return {};
    }

    Status take_variable(const std::optional<std::string>& inside) {
        POSTERN_ASSIGN(const std::string text, word_of("--setenv", inside));
        const std::size_t equals = text.find('=');
        const std::string name = text.substr(0, equals);
        std::string value;
        if (equals != std::string::npos) {
            value = text.substr(equals + 1);
        } else if (!inside && at_ < words_.size() && words_[at_ - 2] == "--setenv") {
            value = words_[at_++];  // postern's form
        } else if (const auto own = variable_(name)) {
            value = *own;
        } else {
            return fail("--setenv: {} is no variable of the caller's; give its value: {}=…", name, name);
        }
        request_.postern.insert(request_.postern.end(), {"--setenv", name, std::move(value)});
        return {};
    }

    [[nodiscard]] Failure unknown(const std::string& name) const {
        Words names;
        for (const OptionInfo& each : run_options_)
            names.insert(names.end(), each.names.begin(), each.names.end());
        for (const SystemdRunOption& each : kOptions) names.emplace_back(each.name);
        const std::vector<std::string_view> candidates(names.begin(), names.end());
        return fail("unknown option {}; did you mean {}? See `postern systemd-run --help`", name,
                    nearest(name, candidates));
    }

    [[nodiscard]] Status check() const {
        if (request_.command.empty() || request_.command.front().empty())
            return fail("no command: write it behind \"--\"");
        if (request_.notify && request_.is_scope) {
            return fail(
                "--notify: a scope has no service manager that waits for it; leave --scope or --notify out");
        }
        return {};
    }

    const Words& words_;
    const std::vector<OptionInfo>& run_options_;
    const std::function<std::optional<std::string>(const std::string&)>& variable_;
    std::size_t at_ = 0;
    SystemdRunRequest request_;
};

/// systemd expands "$NAME" in a service's command; "$$" is "$" (systemd.service(5)).
std::string without_expansion(const std::string& word) {
    std::string result;
    for (const char c : word) {
        result += c;
        if (c == '$') result += c;
    }
    return result;
}

}  // namespace

std::span<const SystemdRunOption> systemd_run_options() {
    return kOptions;
}

Result<SystemdRunRequest> split_systemd_run(
    const Words& words, const std::optional<Words>& rest, const std::vector<OptionInfo>& run_options,
    const std::function<std::optional<std::string>(const std::string&)>& variable) {
    return Splitter(words, run_options, variable).split(rest);
}

Words compose_systemd_run(const SystemdRunRequest& request, const SystemdRunCaller& caller) {
    // First, so that what the caller says counts: of a property's values the last one does.
    Words line = {"systemd-run", "--property=Delegate=yes"};
    if (!request.is_scope) {
        // The launcher alone, which passes the signal on; what is left after TimeoutStopSec= is killed.
        line.emplace_back("--property=KillMode=mixed");
        // Of a process that a signal ends systemd takes these for a success; here the signal is in a status.
        line.emplace_back("--property=SuccessExitStatus=129 130 141 143");
        if (request.notify && !request.has_type) line.emplace_back("--property=Type=notify");
        if (request.notify) line.emplace_back("--property=NotifyAccess=main");
        // Not to be there is no failure: only relative paths need it.
        if (!request.has_folder) line.push_back("--property=WorkingDirectory=-" + caller.folder);
        if (!caller.profile_path.empty())
            line.push_back("--setenv=POSTERN_PROFILE_PATH=" + caller.profile_path);
    }
    line.insert(line.end(), request.systemd.begin(), request.systemd.end());
    line.emplace_back("--");
    const std::size_t command = line.size();
    line.push_back(caller.postern);
    line.emplace_back("run");
    line.insert(line.end(), request.postern.begin(), request.postern.end());
    line.emplace_back("--");
    line.insert(line.end(), request.command.begin(), request.command.end());
    if (request.is_scope || request.expands) return line;
    for (std::size_t i = command; i < line.size(); ++i) line[i] = without_expansion(line[i]);
    return line;
}

}  // namespace postern
