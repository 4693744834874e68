#ifndef UPDRAFT_DEPLOY_TRAIN_WORKERS_H_
#define UPDRAFT_DEPLOY_TRAIN_WORKERS_H_

#include <functional>

namespace updraft::train {

// How many workers train on the CPU: OMP_NUM_THREADS where it is set, else the physical cores that this process may use
// (libtorch's own count takes some virtual machines' cores for threads of one). Small models gain far more from a batch
// per core than from libtorch's threads inside each operation, whose hand-over costs as much as the operation.
int WorkerCount();

// Runs body(0) .. body(workers - 1) at once, each on a thread on which libtorch itself uses no further threads; with
// one worker on the calling thread, which keeps its threads. Rethrows the first exception when all have ended.
void RunOnWorkers(int workers, const std::function<void(int)>& body);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_WORKERS_H_
