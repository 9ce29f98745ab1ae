// SPDX-License-Identifier: Apache-2.0
#include "launcher/job_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/slice_numbers.h"

namespace postern {
namespace {

using Step = JobSchedule::Step;

TEST(JobSchedule, StartsAsManyAsItMay) {
    JobSchedule schedule(3, {2, 0, false, false});
    EXPECT_EQ(schedule.next(4), Step::Start);
    EXPECT_EQ(schedule.take(), 0U);
    EXPECT_EQ(schedule.next(1), Step::Wait) << "there is one place";
    EXPECT_EQ(schedule.next(4), Step::Start);
    EXPECT_EQ(schedule.take(), 1U);
    EXPECT_EQ(schedule.next(4), Step::Wait);
    EXPECT_FALSE(schedule.ended(1, true));
    EXPECT_EQ(schedule.next(4), Step::Start);
    EXPECT_EQ(schedule.take(), 2U);
    EXPECT_FALSE(schedule.ended(0, true));
    EXPECT_EQ(schedule.next(4), Step::Wait);
    EXPECT_FALSE(schedule.ended(2, false));
    EXPECT_EQ(schedule.next(4), Step::Done);
}

TEST(JobSchedule, TriesAgainBehindTheOthers) {
    JobSchedule schedule(2, {1, 2, true, false});
    EXPECT_EQ(schedule.take(), 0U);
    EXPECT_TRUE(schedule.ended(0, false));
    EXPECT_EQ(schedule.take(), 1U);
    EXPECT_FALSE(schedule.ended(1, true));
    EXPECT_EQ(schedule.take(), 0U);
    EXPECT_TRUE(schedule.ended(0, false));
    EXPECT_EQ(schedule.take(), 0U);
    EXPECT_FALSE(schedule.ended(0, false)) << "that was the third time";
    EXPECT_EQ(schedule.next(1), Step::Done);
}

TEST(JobSchedule, FailFastLetsRunWhatRuns) {
    JobSchedule schedule(4, {2, 0, true, false});
    (void)schedule.take();
    (void)schedule.take();
    EXPECT_FALSE(schedule.ended(0, false));
    EXPECT_EQ(schedule.next(2), Step::Wait);
    EXPECT_EQ(schedule.running(), 1U);
    EXPECT_FALSE(schedule.ended(1, true));
    EXPECT_EQ(schedule.next(2), Step::Done);
}

TEST(JobSchedule, StopsForGood) {
    JobSchedule schedule(3, {2, 5, false, false});
    (void)schedule.take();
    (void)schedule.take();
    schedule.stop();
    EXPECT_EQ(schedule.next(2), Step::Wait);
    EXPECT_FALSE(schedule.ended(0, false)) << "not again";
    schedule.put_back(1);
    EXPECT_EQ(schedule.next(2), Step::Done);
}

TEST(JobSchedule, APlaceThatIsLostCostsTheJobNothing) {
    JobSchedule schedule(2, {2, 0, false, false});
    EXPECT_EQ(schedule.take(), 0U);
    schedule.put_back(0);
    EXPECT_EQ(schedule.next(1), Step::Start);
    EXPECT_EQ(schedule.take(), 0U) << "the same again";
    EXPECT_FALSE(schedule.ended(0, true));
    EXPECT_EQ(schedule.next(0), Step::Done) << "there will be no place";
    EXPECT_EQ(schedule.waiting(), 1U);
}

TEST(JobSchedule, ResetsBetweenThoseThatBeginTogether) {
    JobSchedule schedule(3, {2, 1, false, true});
    EXPECT_EQ(schedule.next(2), Step::Start);
    (void)schedule.take();
    EXPECT_EQ(schedule.next(2), Step::Start);
    (void)schedule.take();
    EXPECT_FALSE(schedule.ended(0, true));
    EXPECT_EQ(schedule.next(2), Step::Wait) << "the other one has the device";
    EXPECT_TRUE(schedule.ended(1, false));
    EXPECT_EQ(schedule.next(2), Step::Reset);
    schedule.was_reset();
    EXPECT_EQ(schedule.next(2), Step::Start);
    EXPECT_EQ(schedule.take(), 2U);
    EXPECT_FALSE(schedule.ended(2, true));
    EXPECT_EQ(schedule.next(2), Step::Reset) << "also if only one of two has begun";
    schedule.was_reset();
    EXPECT_EQ(schedule.take(), 1U);
    EXPECT_FALSE(schedule.ended(1, true));
    EXPECT_EQ(schedule.next(2), Step::Done) << "no reset for nobody";
}

TEST(SliceNumbers, GivesEachToOne) {
    SliceNumbers numbers(3);
    EXPECT_EQ(numbers.take(), 0U);
    EXPECT_EQ(numbers.take(), 1U);
    EXPECT_EQ(numbers.take(), 2U);
    EXPECT_EQ(numbers.take(), std::nullopt);
    numbers.give_back(1);
    EXPECT_EQ(numbers.take(), 1U);
    numbers.retire(0);
    EXPECT_EQ(numbers.take(), std::nullopt);
    EXPECT_EQ(numbers.in_service(), 2U);
}

}  // namespace
}  // namespace postern
