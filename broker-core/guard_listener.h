// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bpf/policy.h"
#include "broker-core/guard_lock.h"
#include "broker-core/guard_pins.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

struct ring_buffer;

namespace postern {

/// One reader of the guard's refusals, in one of POSTERN_MAX_LISTENERS slots that all posterns share. Whoever
/// reads too slowly loses refusals, which are counted; nobody waits for a reader.
///
/// The slot is given back at the end, whatever that is: a killed listener's is free at once, and is switched
/// off by the next user of the guard.
class GuardListener {
  public:
    using Handler = std::function<void(const postern_event&)>;

    /// Launchers leave some slots to people who look.
    enum class Who { Launcher, Person };

    /// Listens to the sandbox with this cgroup, 0: to all. Called under GuardLock. Errnum EBUSY: no slot.
    [[nodiscard]] static Result<GuardListener> open(const GuardPins& pins, Who who, uint64_t sandbox);
    /// Switches off the slots of listeners that were killed. Called under GuardLock.
    [[nodiscard]] static Status sweep(const GuardPins& pins);
    /// The slots that somebody holds.
    [[nodiscard]] static Result<std::vector<unsigned>> held();

    GuardListener(GuardListener&&) noexcept = default;
    GuardListener& operator=(GuardListener&&) = delete;
    GuardListener(const GuardListener&) = delete;
    GuardListener& operator=(const GuardListener&) = delete;
    ~GuardListener();

    /// Readable when there is something to read; borrowed.
    [[nodiscard]] int fd() const;
    /// Hands over all that is there, oldest first.
    [[nodiscard]] Status read(const Handler& handler);
    /// Refusals so far for which there was no room.
    [[nodiscard]] Result<uint64_t> lost() const;

  private:
    struct FreeRing {
        void operator()(ring_buffer* ring) const;
    };

    GuardListener(GuardSlot slot, UniqueFd rings, UniqueFd listeners)
        : slot_(std::move(slot)), rings_(std::move(rings)), listeners_(std::move(listeners)) {}

    GuardSlot slot_;
    UniqueFd rings_;
    UniqueFd listeners_;
    UniqueFd buffer_;
    /// Where ring_ finds whom to call; on the heap, so that it stays where it is.
    std::unique_ptr<const Handler*> handler_ = std::make_unique<const Handler*>(nullptr);
    std::unique_ptr<ring_buffer, FreeRing> ring_;
};

}  // namespace postern
