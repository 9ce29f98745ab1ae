// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/keeper.h"
#include "broker-core/result.h"
#include "broker-core/service_manager.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// Entries in systemd's file descriptor store (sd_notify(3), FDSTORE=1; systemd.service(5),
/// FileDescriptorStoreMax=).
///
/// The store has fds with names, knows no entries, and drops an fd whose open file it has already. So each
/// open file is stored once, as "postern.file.ID", and an entry is one more fd, a sealed memfd
/// "postern.entry.GENERATION.NAME" with the ids of its files and its text. That one is sent last, and
/// replaces what was there before in one step: the newest entry whose files are all there counts. Names in
/// the store may have no ':', which is written as '+'.
class SystemdKeeper : public Keeper {
  public:
    /// `passed` is all that systemd passed to this process (take_passed_fds()); what is of the store is taken
    /// out of it, and the rest, a socket unit's, is the caller's still. `limit` is the unit's
    /// FileDescriptorStoreMax=: systemd does not tell what it drops beyond that.
    [[nodiscard]] static Result<std::unique_ptr<SystemdKeeper>> from(ServiceManager manager,
                                                                     std::vector<NamedFd>& passed,
                                                                     size_t limit);

    /// The same with the limit of $FDSTORE, which systemd sets from version 254 on; in older units it is to
    /// be set by Environment=.
    [[nodiscard]] static Result<std::unique_ptr<SystemdKeeper>> from_environment(
        ServiceManager manager, std::vector<NamedFd>& passed);

    [[nodiscard]] Status put(const std::string& name, std::string_view text,
                             std::span<const int> fds) override;
    [[nodiscard]] Status remove(const std::string& name) override;
    /// Also removes what killed brokers left half-sent.
    [[nodiscard]] Result<std::vector<KeptEntry>> take_all() override;
    [[nodiscard]] const char* kind() const override { return "systemd"; }
    /// It is passed to those alone whom systemd starts.
    [[nodiscard]] bool survives_exec() const override { return false; }

    [[nodiscard]] const ServiceManager& manager() const { return manager_; }

  private:
    struct Entry {
        uint64_t generation = 0;
        std::string text;
        std::vector<std::string> files;  ///< ids
    };

    SystemdKeeper(ServiceManager manager, size_t limit) : manager_(std::move(manager)), limit_(limit) {}

    [[nodiscard]] Status adopt_entry(const std::string& stored_name, int file);
    [[nodiscard]] Status store(const std::string& stored_name, int fd) const;
    /// The id of the stored open file that `fd` is, or an empty one.
    [[nodiscard]] Result<std::string> id_of(int fd) const;
    /// Has removed from the store what no entry needs; does not wait for it.
    [[nodiscard]] Status sweep();

    ServiceManager manager_;
    size_t limit_;
    std::map<std::string, UniqueFd> files_;              ///< what is in the store, by id
    std::map<std::string, Entry, std::less<>> entries_;  ///< those that count, by name
    std::vector<std::string> debris_;                    ///< names in the store that do not count
    uint64_t generation_ = 0;                            ///< the highest one that was ever seen
};

}  // namespace postern
