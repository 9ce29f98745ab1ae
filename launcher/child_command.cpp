// SPDX-License-Identifier: Apache-2.0
#include "launcher/child_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

namespace postern {
namespace {

/// Digits of a pid, and what ends them.
constexpr std::size_t kPidRoom = 16;

std::size_t length_of(const std::vector<std::string>& strings, std::size_t more_each) {
    std::size_t length = 0;
    for (const std::string& each : strings) length += each.size() + more_each;
    return length;
}

/// Pointers from the front of a piece of memory on, strings behind them.
class Room {
  public:
    Room(void* memory, std::size_t pointers)
        : next_pointer_(static_cast<char**>(memory)),
          next_text_(reinterpret_cast<char*>(next_pointer_ + pointers)) {}

    /// A list that is filled by put(), up to the next one.
    char** list() { return next_pointer_; }
    char* put(const std::string& text, std::size_t more = 0) {
        char* at = next_text_;
        std::fill_n(std::copy(text.begin(), text.end(), at), more + 1, '\0');
        next_text_ += text.size() + more + 1;
        point(at);
        return at;
    }
    void point(char* to) { *next_pointer_++ = to; }

  private:
    char** next_pointer_;
    char* next_text_;
};

}  // namespace

std::size_t CommandText::size() const {
    const std::size_t pointers = argv.size() + env.size() + 2 * pid_variables.size() + candidates.size() + 4;
    return sizeof(ChildCommand) + pointers * sizeof(char*) + length_of(argv, 1) + length_of(env, 1) +
           length_of(pid_variables, 2 + kPidRoom) + length_of(candidates, 1);
}

ChildCommand& CommandText::lay_out(void* room) const {
    auto* command = new (room) ChildCommand;
    Room rest(command + 1, argv.size() + env.size() + 2 * pid_variables.size() + candidates.size() + 4);
    command->argv = rest.list();
    for (const std::string& each : argv) rest.put(each);
    rest.point(nullptr);
    command->env = rest.list();
    for (const std::string& each : env) rest.put(each);
    std::vector<char*> digits;
    digits.reserve(pid_variables.size());
    for (const std::string& each : pid_variables)
        digits.push_back(rest.put(fmt::format("{}=", each), kPidRoom) + each.size() + 1);
    rest.point(nullptr);
    command->pid_digits = rest.list();
    for (char* each : digits) rest.point(each);
    rest.point(nullptr);
    command->candidates = rest.list();
    for (const std::string& each : candidates) rest.put(each);
    rest.point(nullptr);
    command->has_target = has_target;
    command->target_is_script = target_is_script;
    command->target_device = target_device;
    command->target_inode = target_inode;
    command->target_tree = target_tree;
    return *command;
}

}  // namespace postern
