// SPDX-License-Identifier: Apache-2.0
#include "launcher/job_list.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace postern {
namespace {

constexpr std::string_view kSeparator = ":::";
constexpr std::string_view kPlace = "{}";

bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

bool is_name(std::string_view text) {
    return !text.empty() && (text[0] < '0' || text[0] > '9') &&
           std::all_of(text.begin(), text.end(), [](char c) {
               return c == '_' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
           });
}

Failure needs_shell(char c) {
    return fail("there is no shell that would act on {}: quote it, or write sh -c '…'", c);
}

/// Takes a line apart, character by character.
class Splitter {
  public:
    explicit Splitter(std::string_view line) : line_(line) {}

    Result<std::vector<std::string>> split() {
        while (at_ < line_.size()) {
            const char c = line_[at_];
            if (is_blank(c)) {
                end_word();
                ++at_;
            } else if (c == '#' && !in_word_) {
                break;
            } else {
                POSTERN_TRY(take(c));
            }
        }
        end_word();
        if (assigns_) {
            return fail("there is no shell that would set {}: write env {} …", words_.front(),
                        words_.front());
        }
        return std::move(words_);
    }

  private:
    Status take(char c) {
        constexpr std::string_view kActedOn = "|&;<>()`$*?[";
        if (c == '\'') return take_quoted();
        if (c == '"') return take_double_quoted();
        if (c == '\\') {
            if (at_ + 1 == line_.size()) return fail("ends with a backslash: a command is one line");
            add(line_[at_ + 1], true);
            at_ += 2;
            return {};
        }
        if (kActedOn.find(c) != std::string_view::npos || (c == '~' && !in_word_)) return needs_shell(c);
        add(c, false);
        ++at_;
        return {};
    }

    Status take_quoted() {
        const size_t end = line_.find('\'', at_ + 1);
        if (end == std::string_view::npos) return fail("has a ' without its other half");
        for (const char c : line_.substr(at_ + 1, end - at_ - 1)) add(c, true);
        begin_word(true);
        at_ = end + 1;
        return {};
    }

    Status take_double_quoted() {
        begin_word(true);
        for (++at_; at_ < line_.size(); ++at_) {
            char c = line_[at_];
            if (c == '"') {
                ++at_;
                return {};
            }
            if (c == '$' || c == '`') return needs_shell(c);
            constexpr std::string_view kEscaped = "$`\"\\";
            if (c == '\\' && at_ + 1 < line_.size() &&
                kEscaped.find(line_[at_ + 1]) != std::string_view::npos)
                c = line_[++at_];
            add(c, true);
        }
        return fail("has a \" without its other half");
    }

    void begin_word(bool quoted) {
        in_word_ = true;
        quoted_ = quoted_ || quoted;
    }
    void add(char c, bool quoted) {
        // NAME= before the command, none of it quoted.
        if (c == '=' && !quoted && !quoted_ && words_.empty() && is_name(word_)) assigns_ = true;
        begin_word(quoted);
        word_ += c;
    }
    void end_word() {
        if (!in_word_) return;
        words_.push_back(std::exchange(word_, {}));
        in_word_ = false;
        quoted_ = false;
    }

    std::string_view line_;
    size_t at_ = 0;
    std::vector<std::string> words_;
    std::string word_;
    bool in_word_ = false;
    bool quoted_ = false;
    bool assigns_ = false;
};

std::string_view trimmed(std::string_view line) {
    while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
    while (!line.empty() && is_blank(line.back())) line.remove_suffix(1);
    return line;
}

/// Appends a job with the next number.
void add_job(std::vector<Job>& jobs, std::vector<std::string> command, std::string text) {
    jobs.push_back({static_cast<unsigned>(jobs.size() + 1), std::move(command), std::move(text)});
}

}  // namespace

Result<std::vector<std::string>> split_command(std::string_view line) {
    if (line.find('\0') != std::string_view::npos) return fail("has a NUL character");
    return Splitter(line).split();
}

std::string quote_word(std::string_view word) {
    const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
               std::string_view("%+,-./:@_").find(c) != std::string_view::npos;
    });
    if (plain) return std::string(word);
    std::string quoted = "'";
    for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
    return quoted + "'";
}

std::string quote_command(const std::vector<std::string>& command) {
    std::vector<std::string> words;
    words.reserve(command.size());
    for (const std::string& word : command) words.push_back(quote_word(word));
    return fmt::format("{}", fmt::join(words, " "));
}

Result<std::vector<Job>> parse_job_list(std::string_view text, std::string_view source) {
    std::vector<Job> jobs;
    for (size_t number = 1; !text.empty(); ++number) {
        const size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.ends_with('\r')) line.remove_suffix(1);
        auto command = split_command(line);
        if (!command) return propagate(std::move(command), fmt::format("{}: line {}", source, number));
        if (!command->empty()) add_job(jobs, std::move(*command), std::string(trimmed(line)));
    }
    if (jobs.empty()) return fail("{}: holds no command", source);
    return jobs;
}

bool is_job_list(const std::vector<std::string>& words) {
    return std::find(words.begin(), words.end(), kSeparator) != words.end();
}

Result<std::vector<Job>> jobs_of_arguments(const std::vector<std::string>& words) {
    const auto separator = std::find(words.begin(), words.end(), kSeparator);
    const std::vector<std::string> command(words.begin(), separator);
    if (separator == words.end()) return fail("no \":::\" in the command line");
    const std::vector<std::string> values(separator + 1, words.end());
    if (values.empty()) return fail("nothing stands behind \":::\"");
    if (is_job_list(values))
        return fail("\":::\" stands there twice; write the jobs one by one with --commands");
    std::vector<Job> jobs;
    for (size_t i = 0; i < values.size(); ++i) {
        if (command.empty()) {
            auto split = split_command(values[i]);
            if (!split) return propagate(std::move(split), fmt::format("command {} behind \":::\"", i + 1));
            if (split->empty()) return fail("command {} behind \":::\" is empty", i + 1);
            add_job(jobs, std::move(*split), std::string(trimmed(values[i])));
            continue;
        }
        std::vector<std::string> filled;
        bool has_place = false;
        for (std::string word : command) {
            for (size_t at = 0; (at = word.find(kPlace, at)) != std::string::npos; at += values[i].size()) {
                word.replace(at, kPlace.size(), values[i]);
                has_place = true;
            }
            filled.push_back(std::move(word));
        }
        if (!has_place) filled.push_back(values[i]);
        std::string text = quote_command(filled);
        add_job(jobs, std::move(filled), std::move(text));
    }
    return jobs;
}

}  // namespace postern
