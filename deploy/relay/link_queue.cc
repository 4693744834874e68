#include "deploy/relay/link_queue.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

namespace updraft::relay {
namespace {

// In [0, 1), from a counter (SplitMix64: Steele, Lea, Flood 2014), so that the n-th segment has the same jitter
// whatever happened before.
double Uniform(uint64_t seed, uint64_t n) {
  uint64_t z = seed * 0x9e3779b97f4a7c15u + (n + 1) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

}  // namespace

// ---- InterruptedRate ----------------------------------------------------------------------------------------------

double InterruptedRate::Lost(const Gap& gap, double t) const {
  return gap.lost + rate_.Integral(std::min(t, gap.until)) - rate_.Integral(gap.from);
}

double InterruptedRate::At(double t) const {
  for (const Gap& gap : gaps_) {
    if (t >= gap.from && t < gap.until) return 0.0;
  }
  return rate_.At(t);
}

double InterruptedRate::Integral(double t) const {
  const auto after =
      std::upper_bound(gaps_.begin(), gaps_.end(), t, [](double time, const Gap& gap) { return time < gap.from; });
  return rate_.Integral(t) - (after == gaps_.begin() ? 0.0 : Lost(*std::prev(after), t));
}

double InterruptedRate::Inverse(double amount) const {
  // The last gap before which less than the amount has passed: it is reached after that gap.
  const auto after = std::lower_bound(gaps_.begin(), gaps_.end(), amount - StepCurve::Slack(amount),
                                      [](const Gap& gap, double wanted) { return gap.before < wanted; });
  if (after == gaps_.begin()) return rate_.Inverse(amount);
  const Gap& gap = *std::prev(after);
  if (gap.until == std::numeric_limits<double>::infinity()) return gap.until;
  return std::max(gap.until, rate_.Inverse(amount + Lost(gap, gap.until)));
}

void InterruptedRate::Interrupt(double from, double until) {
  if (!gaps_.empty() && from <= gaps_.back().until) {  // goes on
    gaps_.back().until = std::max(gaps_.back().until, until);
    return;
  }
  if (until <= from) return;
  gaps_.push_back({from, until, Integral(from), gaps_.empty() ? 0.0 : Lost(gaps_.back(), gaps_.back().until)});
}

void InterruptedRate::Resume(double t) {
  if (gaps_.empty() || t < gaps_.back().from) return;
  gaps_.back().until = std::min(gaps_.back().until, t);
}

// ---- LinkQueue ----------------------------------------------------------------------------------------------------

LinkQueue::LinkQueue(RoadLane lane, const LinkQueueOptions& options)
    : rate_(std::move(lane.rate)), delay_(std::move(lane.delay)), jitter_(std::move(lane.jitter)), options_(options) {
  assert(options.queue_bytes >= 1);
}

double LinkQueue::ArrivalOf(double leaves) const {
  const double jitter = jitter_.At(leaves) * Uniform(options_.seed, n_left_);
  return std::max(last_arrival_, leaves + delay_.At(leaves) + jitter);
}

void LinkQueue::StartHead(double amount) {
  if (queue_.empty()) {
    head_leaves_ = kNever;
    return;
  }
  served_ = amount;
  const Parcel& parcel = queue_.front().parcel;
  const int64_t n_bytes = parcel.mark == Mark::kData ? parcel.n_bytes : kMarkBytes;
  head_leaves_ = rate_.Inverse(served_ + static_cast<double>(n_bytes));
}

void LinkQueue::Advance(double now) {
  now_ = std::max(now_, now);
  while (!queue_.empty() && head_leaves_ <= now_) {
    Segment segment = queue_.front();
    queue_.pop_front();
    const bool data = segment.parcel.mark == Mark::kData;
    segment.arrives = last_arrival_ = ArrivalOf(head_leaves_);
    ++n_left_;
    queued_bytes_ -= segment.parcel.n_bytes;
    Fly(segment);
    StartHead(served_ + static_cast<double>(data ? segment.parcel.n_bytes : kMarkBytes));
  }
}

bool LinkQueue::InOneTick(double a, double b) const {
  if (options_.tick_s <= 0.0) return a == b;
  return std::floor(a / options_.tick_s) == std::floor(b / options_.tick_s);
}

void LinkQueue::Fly(const Segment& segment) {
  if (!flight_.empty()) {
    Segment& last = flight_.back();
    if (last.parcel.mark == Mark::kData && segment.parcel.mark == Mark::kData &&
        last.parcel.stream == segment.parcel.stream && InOneTick(last.arrives, segment.arrives)) {
      last.parcel.n_bytes += segment.parcel.n_bytes;
      last.arrives = segment.arrives;
      return;
    }
  }
  flight_.push_back(segment);
}

int64_t LinkQueue::Room(double now) {
  Advance(now);
  return options_.queue_bytes - queued_bytes_;
}

void LinkQueue::Push(const Parcel& parcel, double now) {
  Advance(now);
  const bool idle = queue_.empty();
  int64_t rest = parcel.mark == Mark::kData ? parcel.n_bytes : 0;
  assert(parcel.mark != Mark::kData || (rest >= 1 && rest <= options_.queue_bytes - queued_bytes_));
  queued_bytes_ += rest;
  do {
    const int64_t n_bytes = std::min(rest, kSegmentBytes);
    queue_.push_back({{parcel.stream, parcel.mark, n_bytes}, 0.0});
    rest -= n_bytes;
  } while (rest > 0);
  if (idle) StartHead(rate_.Integral(now_));
}

void LinkQueue::Pop(double now, std::vector<Parcel>* arrived) {
  Advance(now);
  bool joins = false;
  for (; !flight_.empty() && flight_.front().arrives <= now_; flight_.pop_front()) {
    const Parcel& parcel = flight_.front().parcel;
    if (joins && parcel.mark == Mark::kData && arrived->back().mark == Mark::kData &&
        arrived->back().stream == parcel.stream) {
      arrived->back().n_bytes += parcel.n_bytes;
    } else {
      arrived->push_back(parcel);
    }
    joins = true;
  }
}

double LinkQueue::NextArrival() const {
  if (!flight_.empty()) return flight_.front().arrives;
  return head_leaves_ == kNever ? kNever : ArrivalOf(head_leaves_);
}

double LinkQueue::NextRoom() const { return head_leaves_; }

void LinkQueue::Stall(double from, double until) {
  Advance(from);
  rate_.Interrupt(now_, until);
  StartHead(served_);
}

void LinkQueue::Resume(double now) {
  Advance(now);
  rate_.Resume(now_);
  StartHead(served_);
}

void LinkQueue::Clear(double now) {
  Advance(now);
  queue_.clear();
  flight_.clear();
  queued_bytes_ = 0;
  head_leaves_ = kNever;
  last_arrival_ = now_;
}

}  // namespace updraft::relay
