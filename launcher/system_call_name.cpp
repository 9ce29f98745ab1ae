// SPDX-License-Identifier: Apache-2.0
#include "launcher/system_call_name.h"

#include <algorithm>
#include <iterator>

namespace postern {
namespace {

struct NumberedName {
    int number;
    std::string_view name;
};

// kX86_64Names, kI386Names, kX32Names: libseccomp's, in the order of their numbers.
#include "system_call_names.inc"

template <std::size_t N>
std::string_view find_name(const NumberedName (&names)[N], int number) {
    const auto* const found =
        std::lower_bound(std::begin(names), std::end(names), number,
                         [](const NumberedName& each, int wanted) { return each.number < wanted; });
    return found != std::end(names) && found->number == number ? found->name : std::string_view();
}

}  // namespace

std::string_view system_call_name(int number, SystemCallAbi abi) {
    switch (abi) {
        case SystemCallAbi::X86_64:
            return find_name(kX86_64Names, number);
        case SystemCallAbi::I386:
            return find_name(kI386Names, number);
        case SystemCallAbi::X32:
            return find_name(kX32Names, number);
    }
    return "";
}

}  // namespace postern
