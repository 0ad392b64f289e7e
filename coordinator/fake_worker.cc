#include "coordinator/fake_worker.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/errors.h"

namespace shardplane {
namespace {

absl::Status Gone() { return absl::UnavailableError("Connection refused"); }

absl::Status Aborted() {
  return MakeError(absl::StatusCode::kUnavailable, "the gang was aborted",
                   {.reason = "GANG_BROKEN"});
}

HostTensor Half() {
  const float half = 0.5f;
  HostTensor tensor{{DType::kFloat32, {}}, std::string(sizeof(half), '\0')};
  std::memcpy(tensor.bytes.data(), &half, sizeof(half));
  return tensor;
}

}  // namespace

class FakeSink : public TensorSink {
 public:
  FakeSink(FakeWorker* worker, std::string key)
      : worker_(worker), key_(std::move(key)) {}
  bool Write(const v1::TensorData&) override {
    absl::MutexLock lock(&worker_->mu_);
    return !worker_->dead_;
  }
  absl::Status Finish() override {
    absl::MutexLock lock(&worker_->mu_);
    SP_RETURN_IF_ERROR(worker_->Now(Method::kStageTensor));
    worker_->staged_.push_back(key_);
    return absl::OkStatus();
  }

 private:
  FakeWorker* worker_;
  const std::string key_;
};

class FakeFlow : public TensorFlow {
 public:
  explicit FakeFlow(absl::StatusOr<LocalTensor> tensor)
      : tensor_(std::move(tensor)) {}
  absl::StatusOr<LocalTensor> Finish() override { return tensor_; }

 private:
  absl::StatusOr<LocalTensor> tensor_;
};

FakeWorker::~FakeWorker() {
  Die();
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mu_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void FakeWorker::FailNext(Method method, absl::Status status) {
  absl::MutexLock lock(&mu_);
  behaviours_[method].failures.push_back(std::move(status));
}

void FakeWorker::Hold(Method method) {
  absl::MutexLock lock(&mu_);
  behaviours_[method].hold = true;
}

void FakeWorker::Release(Method method) {
  absl::MutexLock lock(&mu_);
  behaviours_[method].hold = false;
}

void FakeWorker::WaitUntilHeld(Method method) {
  absl::MutexLock lock(&mu_);
  const auto held = [this, method]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return behaviours_[method].held > 0;
  };
  mu_.Await(absl::Condition(&held));
}

void FakeWorker::WaitForCalls(Method method, int calls) {
  absl::MutexLock lock(&mu_);
  const auto called = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return behaviours_[method].calls >= calls;
  };
  mu_.Await(absl::Condition(&called));
}

void FakeWorker::Forgive() {
  absl::MutexLock lock(&mu_);
  forgiving_ = true;
}

void FakeWorker::Freeze() {
  absl::MutexLock lock(&mu_);
  frozen_ = true;
}

void FakeWorker::SetGradientNorm(double norm) {
  absl::MutexLock lock(&mu_);
  gradient_norm_ = norm;
}

void FakeWorker::Die() {
  absl::MutexLock lock(&mu_);
  dead_ = true;
}

int FakeWorker::calls(Method method) const {
  absl::MutexLock lock(&mu_);
  const auto it = behaviours_.find(method);
  return it == behaviours_.end() ? 0 : it->second.calls;
}

std::vector<CommitCall> FakeWorker::commits() const {
  absl::MutexLock lock(&mu_);
  return commits_;
}

std::vector<RunCall> FakeWorker::runs() const {
  absl::MutexLock lock(&mu_);
  return runs_;
}

std::vector<std::string> FakeWorker::staged() const {
  absl::MutexLock lock(&mu_);
  return staged_;
}

JoinGangCall FakeWorker::joined() const {
  absl::MutexLock lock(&mu_);
  return joined_;
}

void FakeWorker::SetProgress(MaterializeProgress progress) {
  absl::MutexLock lock(&mu_);
  progress_ = progress;
}

void FakeWorker::SetRecording(StepRecording recording) {
  absl::MutexLock lock(&mu_);
  recording_ = std::move(recording);
}

std::string FakeWorker::last_traceparent() const {
  absl::MutexLock lock(&mu_);
  return last_traceparent_;
}

MaterializeCall FakeWorker::materialized() const {
  absl::MutexLock lock(&mu_);
  return materialized_;
}

std::string FakeWorker::last_request_id() const {
  absl::MutexLock lock(&mu_);
  return last_request_id_;
}

absl::Status FakeWorker::Now(Method method) {
  ++behaviours_[method].calls;
  return End(method);
}

absl::Status FakeWorker::End(Method method) {
  Behaviour& behaviour = behaviours_[method];
  if (dead_) {
    return Gone();
  }
  if (behaviour.failures.empty()) {
    return absl::OkStatus();
  }
  absl::Status failure = behaviour.failures.front();
  behaviour.failures.erase(behaviour.failures.begin());
  return failure;
}

absl::Status FakeWorker::AwaitRelease(Method method, const CallOptions& options,
                                      int aborts) {
  bool cancelled = false;
  Cancellation::Registration registration;
  registration.Set(options.cancellation, [this, &cancelled] {
    absl::MutexLock hook_lock(&mu_);
    cancelled = true;
  });
  absl::Status end;
  {
    absl::MutexLock lock(&mu_);
    ++behaviours_[method].held;
    const auto over = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return !behaviours_[method].hold || dead_ || cancelled ||
             aborts_ != aborts;
    };
    mu_.Await(absl::Condition(&over));
    --behaviours_[method].held;
    end = dead_               ? Gone()
          : cancelled         ? absl::CancelledError("cancelled")
          : aborts_ != aborts ? Aborted()
                              : absl::OkStatus();
  }
  registration.Reset();
  return end;
}

void FakeWorker::Serve(Method method, const GangRef& gang,
                       const CallOptions& options, Done finish) {
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    last_request_id_ = gang.request_id;
    if (!options.traceparent.empty()) last_traceparent_ = options.traceparent;
    status = Now(method);
    if (status.ok() && behaviours_[method].hold) {
      threads_.emplace_back([this, method, options, finish, aborts = aborts_] {
        finish(AwaitRelease(method, options, aborts));
      });
      return;
    }
  }
  finish(status);
}

void FakeWorker::JoinGang(const GangRef& gang, const JoinGangCall& call,
                          const CallOptions& options, Done done) {
  Serve(Method::kJoinGang, gang, options, [this, call, done](auto status) {
    if (status.ok()) {
      absl::MutexLock lock(&mu_);
      joined_ = call;
      programs_.clear();
      committed_ = {};
    }
    done(status);
  });
}

void FakeWorker::LeaveGang(const GangRef& gang, const CallOptions& options,
                           Done done) {
  Serve(Method::kLeaveGang, gang, options, std::move(done));
}

void FakeWorker::Abort(const GangRef& gang, const std::string&,
                       const CallOptions& options, Done done) {
  Serve(Method::kAbort, gang, options, [this, done](auto status) {
    {
      absl::MutexLock lock(&mu_);
      aborts_ += frozen_ ? 0 : 1;
    }
    done(status);
  });
}

void FakeWorker::Materialize(const GangRef& gang, const MaterializeCall& call,
                             const CallOptions& options,
                             Answer<std::vector<CollectiveCount>> done) {
  Serve(Method::kMaterialize, gang, options, [this, call, done](auto status) {
    if (!status.ok()) {
      return done(status);
    }
    {
      absl::MutexLock lock(&mu_);
      materialized_ = call;
    }
    done(std::vector<CollectiveCount>{{"materialize", "scatter", 3, 1400}});
  });
}

void FakeWorker::LoadProgram(const GangRef& gang, const ProgramId& id,
                             const ShardedProgram& program,
                             const CallOptions& options, Done done) {
  Serve(Method::kLoadProgram, gang, options,
        [this, id, program, done](auto status) {
          if (status.ok()) {
            absl::MutexLock lock(&mu_);
            programs_[id.value] = program;
          }
          done(status);
        });
}

RunOutcome FakeWorker::Outcome(const RunCall& call) {
  runs_.push_back(call);
  if (call.mode != RunMode::kNorm) last_program_ = call.program;
  RunOutcome outcome{.seconds = 0.25};
  if (call.mode != RunMode::kNorm) {
    outcome.collectives.push_back({"forward", "all_reduce", 1, 384});
  }
  if (call.mode == RunMode::kTrain) {
    outcome.loss = Half();
  }
  if (call.gradient_norm) {
    outcome.collectives.push_back({"optimizer", "all_reduce", 1, 8});
    outcome.gradient_norm = gradient_norm_;
  }
  return outcome;
}

void FakeWorker::Run(const GangRef& gang, const RunCall& call,
                     const CallOptions& options, Answer<RunOutcome> done) {
  Serve(Method::kRun, gang, options, [this, call, done](auto status) {
    if (!status.ok()) {
      return done(status);
    }
    mu_.Lock();
    RunOutcome outcome = Outcome(call);
    mu_.Unlock();
    done(std::move(outcome));
  });
}

void FakeWorker::Commit(const GangRef& gang, const CommitCall& call,
                        const CallOptions& options, Done done) {
  Serve(Method::kCommit, gang, options, [this, call, done](auto status) {
    if (status.ok()) {
      absl::MutexLock lock(&mu_);
      commits_.push_back(call);
      if (!call.abandon) committed_ = call.step;
    }
    done(status);
  });
}

void FakeWorker::GetProgress(const GangRef& gang, const CallOptions& options,
                             Answer<MaterializeProgress> done) {
  Serve(Method::kGetProgress, gang, options, [this, done](auto status) {
    mu_.Lock();
    const MaterializeProgress progress = progress_;
    mu_.Unlock();
    status.ok() ? done(progress) : done(status);
  });
}

void FakeWorker::GetTimeline(const GangRef& gang, StepNumber,
                             const CallOptions& options,
                             Answer<StepRecording> done) {
  Serve(Method::kGetTimeline, gang, options, [this, done](auto status) {
    mu_.Lock();
    const StepRecording recording = recording_;
    mu_.Unlock();
    status.ok() ? done(recording) : done(status);
  });
}

std::unique_ptr<TensorSink> FakeWorker::StageTensor(const GangRef&,
                                                    const std::string& key,
                                                    const TensorType&,
                                                    const CallOptions&) {
  return std::make_unique<FakeSink>(this, key);
}

std::unique_ptr<TensorFlow> FakeWorker::ReadTensor(const GangRef&,
                                                   const TensorKey& key,
                                                   const CallOptions&) {
  absl::MutexLock lock(&mu_);
  const absl::Status status = Now(Method::kReadTensor);
  return std::make_unique<FakeFlow>(
      status.ok() ? absl::StatusOr<LocalTensor>(Read(key)) : status);
}

LocalTensor FakeWorker::Read(const TensorKey& key) {
  LocalTensor tensor;
  if (const auto* output = std::get_if<OutputKey>(&key)) {
    const ShardedProgram& program = programs_.at(last_program_.value);
    const Value& value = program.values[program.outputs[output->index]];
    tensor.global = value.type;
    tensor.spec = value.spec;
  } else if (const auto* input = std::get_if<InputGradientKey>(&key)) {
    const ShardedProgram& program = programs_.at(last_program_.value);
    const Value& value = program.values[program.inputs[input->index].gradient];
    tensor.global = value.type;
    tensor.spec = value.spec;
  } else {
    const auto* parameter = std::get_if<ParameterKey>(&key);
    const std::string fqn =
        parameter != nullptr ? parameter->fqn : std::get<GradientKey>(key).fqn;
    for (const MaterializeCall::Source& source : materialized_.parameters) {
      if (source.fqn == fqn) {
        tensor.global = source.type;
        tensor.spec = source.spec;
      }
    }
  }
  tensor.local.type = {
      tensor.global.dtype,
      LocalShape(tensor.global.shape, tensor.spec, joined_.mesh,
                 joined_.mesh.Coordinate(joined_.rank))};
  tensor.local.bytes.resize(ByteSize(tensor.local.type));
  return tensor;
}

std::shared_ptr<FakeWorker> FakeCluster::Find(const std::string& id) {
  absl::MutexLock lock(&mu_);
  std::shared_ptr<FakeWorker>& worker = workers_[id];
  if (worker == nullptr) {
    worker = std::make_shared<FakeWorker>();
  }
  return worker;
}

FakeWorker& FakeCluster::worker(const std::string& id) { return *Find(id); }

std::string FakeCluster::NextUid() {
  absl::MutexLock lock(&mu_);
  return absl::StrFormat("%08x-0000-4000-8000-000000000000", ++ids_);
}

Coordinator::Options FakeCluster::options() {
  Coordinator::Options options;
  options.lease = absl::Seconds(10);
  options.rendezvous_address = [] { return "coordinator:1"; };
  options.connect = [this](const std::string& address) {
    return Find(address);
  };
  options.clock = [this] { return now(); };
  options.random_uid = [this] { return NextUid(); };
  options.random_id = [this] { return NextUid().substr(0, 8); };
  options.gang = {.grace = absl::Milliseconds(20),
                  .abort_timeout = absl::Milliseconds(50)};
  return options;
}

void FakeCluster::Advance(absl::Duration duration) {
  absl::MutexLock lock(&mu_);
  now_ += duration;
}

absl::Time FakeCluster::now() const {
  absl::MutexLock lock(&mu_);
  return now_;
}

}  // namespace shardplane
