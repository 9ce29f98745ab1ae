// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/hook_commands.h"
#include "oci-hook/slice_name.h"

namespace postern {

Result<HookOptions> read_hook_options(const std::vector<std::string>& words, SliceOption slice) {
    HookOptions options;
    for (size_t i = 0; i < words.size(); i += 2) {
        const bool takes_slice = slice == SliceOption::Needed;
        std::string* const value = words[i] == "--slice" && takes_slice ? &options.slice
                                   : words[i] == "--broker"             ? &options.broker
                                   : words[i] == "--config"             ? &options.config
                                                                        : nullptr;
        if (value == nullptr)
            return fail("unknown option {}; see `postern-oci-hook --help`", one_line(words[i]));
        if (i + 1 == words.size() || words[i + 1].empty()) return fail("{} needs a value", words[i]);
        *value = words[i + 1];
    }
    if (slice == SliceOption::Needed && !is_slice_name(options.slice))
        return fail("--slice {}: is not the name of a slice, such as disk.0", one_line(options.slice));
    return options;
}

}  // namespace postern
