// Which weights are read next. A forward pass multiplies by the same matrices in the same order for every token, so the
// order of the last one says what a waiting thread should ask memory for; nobody has to announce it.
#ifndef UPDRAFT_KERNELS_CPU_WEIGHTS_AHEAD_H_
#define UPDRAFT_KERNELS_CPU_WEIGHTS_AHEAD_H_

#include <memory>
#include <unordered_map>
#include <vector>

#include "kernels/ops.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {

class WeightsAhead {
 public:
  // A product that is cut into n_chunks begins, the first of its matrices being `first`. begins(ahead) adds what each
  // of its threads reads first; called only when this product has not been seen after the one before. Returns what came
  // after this product the last time, null when that is not known or changes too often. The result lives as long as
  // this object and does not change.
  template <typename Begins>
  const MemoryAhead* Begin(const PackedMatrix* first, int n_chunks, int n_threads, const Begins& begins) {
    if (previous_ != nullptr && (previous_->next != first || previous_->n_chunks != n_chunks)) {
      previous_->next = first;
      previous_->n_chunks = n_chunks;
      previous_->ahead = nullptr;
      if (previous_->n_changes < kMaxChanges) {
        ++previous_->n_changes;
        auto ahead = std::make_unique<MemoryAhead>(n_threads);
        begins(*ahead);
        previous_->ahead = ahead.get();
        all_.push_back(std::move(ahead));
      }
    }
    previous_ = &products_[first];
    return previous_->ahead;
  }

  // What comes now does not follow on the product before.
  void Forget() { previous_ = nullptr; }

  // Nothing that was seen so far says what will be seen.
  void ForgetAll() {
    previous_ = nullptr;
    products_.clear();
  }

 private:
  // Waiting threads may still look at what was replaced, so nothing is freed; a product whose successor alternates, as
  // where some tokens leave a model early, is given up.
  static constexpr int kMaxChanges = 4;

  struct Product {
    const PackedMatrix* next = nullptr;
    int n_chunks = 0;  // of the next
    int n_changes = 0;
    const MemoryAhead* ahead = nullptr;
  };
  std::unordered_map<const PackedMatrix*, Product> products_;  // by first matrix; elements stay where they are
  std::vector<std::unique_ptr<const MemoryAhead>> all_;
  Product* previous_ = nullptr;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_WEIGHTS_AHEAD_H_
