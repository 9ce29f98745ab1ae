// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/attempt.h"

#include <cerrno>

namespace postern::hostile {

Attempt judged(long returned, const char* step) {
    const int errnum = errno;
    if (returned < 0) return failed(errnum, step);
    return succeeded(step);
}

Attempt preparation_failed(const char* step) {
    const int errnum = errno;
    return impossible(std::string("could not prepare: ") + step, errnum);
}

}  // namespace postern::hostile
