// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/hook_commands.h"
#include "oci-hook/slice_name.h"

namespace postern {

Result<HookOptions> read_hook_options(const std::vector<std::string>& words, HookSubject subject) {
    HookOptions options;
    for (size_t i = 0; i < words.size(); i += 2) {
        const auto is = [&](const char* name, HookSubject about) {
            return words[i] == name && subject == about;
        };
        std::string* const value = is("--slice", HookSubject::Slice)   ? &options.slice
                                   : is("--grant", HookSubject::Grant) ? &options.grant
                                   : words[i] == "--broker"            ? &options.broker
                                   : words[i] == "--config"            ? &options.config
                                                                       : nullptr;
        if (value == nullptr)
            return fail("unknown option {}; see `postern-oci-hook --help`", one_line(words[i]));
        if (i + 1 == words.size() || words[i + 1].empty()) return fail("{} needs a value", words[i]);
        *value = words[i + 1];
    }
    if (subject == HookSubject::Grant && options.grant.empty())
        return fail("--grant is missing; see `postern-oci-hook --help`");
    if (subject == HookSubject::Slice && !is_slice_name(options.slice))
        return fail("--slice {}: is not the name of a slice, such as disk.0", one_line(options.slice));
    return options;
}

}  // namespace postern
