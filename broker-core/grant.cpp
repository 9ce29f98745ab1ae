// SPDX-License-Identifier: Apache-2.0
#include "broker-core/grant.h"

#include "broker-core/file.h"
#include "broker-core/manifest.h"

namespace postern {

Grant begin_grant(unsigned slice, std::string id) {
    Grant grant;
    grant.id = std::move(id);
    grant.slice = slice;
    grant.fds.push_back({"manifest", UniqueFd()});
    grant.manifest = empty_manifest(grant.id);
    grant.manifest["slice"] = slice;
    return grant;
}

Status finish_grant(Grant& grant) {
    std::vector<std::string> names;
    for (const NamedFd& each : grant.fds) names.push_back(each.name);
    grant.manifest["fds"] = fd_numbers(names);
    POSTERN_ASSIGN(grant.fds[0].fd, sealed_memfd("postern-manifest", grant.manifest.dump()));
    return {};
}

}  // namespace postern
