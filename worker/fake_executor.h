// An Executor that writes down what it is asked to do.
#ifndef SHARDPLANE_WORKER_FAKE_EXECUTOR_H_
#define SHARDPLANE_WORKER_FAKE_EXECUTOR_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "worker/executor.h"

namespace shardplane {

// Thread-safe: a test reads what the executor's thread writes.
class FakeExecutor : public Executor {
 public:
  // What the next calls answer.
  RunResult run_result;
  absl::Status run_status;
  absl::Status join_status;
  absl::Status check_commit_status;
  absl::Status commit_status;
  Verdict peers = Verdict::kCommit;  // what the other ranks say
  absl::Status agree_status;
  ShardedTensor tensor;
  // Where set, a run waits for it: Abort, or the test, notifies. If it goes on
  // then, block_status is OK.
  std::shared_ptr<absl::Notification> block_run;
  absl::Status block_status = absl::UnavailableError("aborted");
  // Where set, notified when a run begins.
  std::shared_ptr<absl::Notification> run_began;

  std::vector<std::string> calls() const {
    absl::MutexLock lock(&mutex_);
    return calls_;
  }
  // Waits until there are that many.
  void AwaitCalls(size_t count) const {
    absl::MutexLock lock(&mutex_);
    const auto there = [&] {
      mutex_.AssertReaderHeld();
      return calls_.size() >= count;
    };
    mutex_.Await(absl::Condition(&there));
  }
  HostTensor staged(const std::string& key) const {
    absl::MutexLock lock(&mutex_);
    const auto found = staged_.find(key);
    return found == staged_.end() ? HostTensor() : found->second;
  }

  RunSpec last_run() const {
    absl::MutexLock lock(&mutex_);
    return last_run_;
  }

  absl::Status JoinGang(const GangSpec& spec,
                        std::shared_ptr<GangStore>) override {
    Write(absl::StrCat("join ", spec.epoch, " rank ", spec.rank));
    return join_status;
  }
  absl::Status LeaveGang() override { return Wrote("leave"); }
  absl::Status Stage(const std::string& key, HostTensor tensor) override {
    Write(absl::StrCat("stage ", key));
    absl::MutexLock lock(&mutex_);
    staged_[key] = std::move(tensor);
    return absl::OkStatus();
  }
  absl::StatusOr<RanCollectives> Materialize(
      const MaterializeSpec& spec, MaterializeProgress* progress) override {
    if (progress != nullptr) {
      progress->bytes_total = 8;
      progress->bytes_done = 8;
      progress->bytes_read = 3;
    }
    Write(absl::StrCat("materialize ", spec.parameters.size()));
    return RanCollectives{{{"materialize", "scatter", 1, 8}},
                          0,
                          {{"scatter", Transport::kSharedMemory, 8}}};
  }
  absl::Status LoadProgram(const std::string& id,
                           const ShardedProgram&) override {
    return Wrote(absl::StrCat("load ", id));
  }
  absl::StatusOr<RunResult> Run(const RunSpec& spec) override {
    {
      absl::MutexLock lock(&mutex_);
      last_run_ = spec;
    }
    Write(spec.mode == RunMode::kNorm
              ? "norm"
              : absl::StrCat("run ", spec.program, " of ",
                             absl::StrJoin(spec.inputs, ","),
                             spec.gradient_norm ? " with norm" : "",
                             spec.random_step == 0
                                 ? ""
                                 : absl::StrCat(" at ", spec.random_step)));
    if (run_began != nullptr && !run_began->HasBeenNotified()) {
      run_began->Notify();
    }
    if (block_run != nullptr) {
      block_run->WaitForNotification();
      if (!block_status.ok()) return block_status;
    }
    if (!run_status.ok()) return run_status;
    return run_result;
  }
  absl::Status CheckCommit(const std::optional<OptimizerOptions>&,
                           std::optional<double>) override {
    return check_commit_status;
  }
  absl::StatusOr<Agreement> Agree(Verdict verdict) override {
    Write(verdict == Verdict::kCommit ? "agree to commit" : "agree to discard");
    if (!agree_status.ok()) return agree_status;
    return Agreement{verdict == Verdict::kCommit ? peers : verdict,
                     {{"commit", "all_reduce", 1, 4}},
                     {{"all_reduce", Transport::kSharedMemory, 4}}};
  }
  absl::Status Commit(const std::optional<OptimizerOptions>& optimizer,
                      std::optional<double> clip_norm) override {
    std::string call = "commit";
    if (optimizer.has_value()) {
      absl::StrAppend(&call, " with ", KindName(optimizer->values));
    }
    if (clip_norm.has_value()) absl::StrAppend(&call, " clip ", *clip_norm);
    Write(std::move(call));
    return commit_status;
  }
  absl::Status Discard() override { return Wrote("discard"); }
  absl::Status LoadState(const LoadStateSpec& spec) override {
    return Wrote(absl::StrCat("load state ", spec.entries.size()));
  }
  absl::Status ResetOptimizer() override { return Wrote("reset optimizer"); }
  absl::StatusOr<ShardedTensor> Read(const TensorKey&) override {
    Write("read");
    return tensor;
  }
  void Abort(absl::string_view reason) override {
    Write(absl::StrCat("abort: ", reason));
    if (block_run != nullptr && !block_run->HasBeenNotified()) {
      block_run->Notify();
    }
  }

 private:
  void Write(std::string call) {
    absl::MutexLock lock(&mutex_);
    calls_.push_back(std::move(call));
  }
  absl::Status Wrote(std::string call) {
    Write(std::move(call));
    return absl::OkStatus();
  }

  mutable absl::Mutex mutex_;
  std::vector<std::string> calls_ ABSL_GUARDED_BY(mutex_);
  RunSpec last_run_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<std::string, HostTensor> staged_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_FAKE_EXECUTOR_H_
