// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/keeper.h"
#include "broker-core/packet.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// Entries in a postern-holder, a small process that outlives the broker, whatever signals the broker's
/// process group gets. Its end is the loss of what it kept; each later call is an error then.
class HolderKeeper : public Keeper {
  public:
    /// Connects to the holder of `folder`, an existing folder that only this user may write; starts
    /// libexec/postern/postern-holder where there is none. Its socket is holder.sock there. Error: errnum
    /// EBUSY if another broker is alive (a dying one is waited for a moment).
    [[nodiscard]] static Result<std::unique_ptr<HolderKeeper>> connect_or_start(const std::string& folder);

    [[nodiscard]] Status put(const std::string& name, std::string_view text,
                             std::span<const int> fds) override;
    [[nodiscard]] Status remove(const std::string& name) override;
    [[nodiscard]] Result<std::vector<KeptEntry>> take_all() override;
    [[nodiscard]] const char* kind() const override { return "holder"; }

    /// Ends the holder and with it all that it keeps: for a broker that goes for good. What was open nowhere
    /// else is closed when this returns, unless that took more than 10 s.
    [[nodiscard]] Status quit() override;

  private:
    HolderKeeper(UniqueFd connection, std::string path)
        : connection_(std::move(connection)), path_(std::move(path)) {}

    [[nodiscard]] static Result<std::unique_ptr<HolderKeeper>> greet(UniqueFd connection,
                                                                     const std::string& path);
    /// One request and its answer, which is not a refusal.
    [[nodiscard]] Result<Packet> ask(std::string_view request, std::span<const int> fds = {});
    [[nodiscard]] Result<Packet> receive_answer();
    /// As Status, for requests that are answered by "done".
    [[nodiscard]] Status ask_for_done(std::string_view request, std::span<const int> fds = {});

    UniqueFd connection_;  ///< closed once an answer was not understood: the next one could be another's
    std::string path_;
};

}  // namespace postern
