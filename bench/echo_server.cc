#include "bench/echo_server.h"

#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "shardplane/v1/coordinator.grpc.pb.h"
#include "shardplane/v1/worker.grpc.pb.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using WorkerStub = std::unique_ptr<pb::Worker::Stub>;

// What there is in an answer of either kind.
template <typename Answer>
void SetLoss(Answer* answer) {
  answer->mutable_loss()->mutable_type()->set_dtype(pb::DTYPE_FLOAT32);
  answer->mutable_loss()->set_inline_("loss");
  for (const char* phase : {"forward", "optimizer"}) {
    pb::CollectiveCount& count = *answer->add_collectives();
    count.set_phase(phase);
    count.set_kind("all_reduce");
    count.set_count(1);
    count.set_bytes(320);
  }
}

void AnswerStep(const pb::StepRequest& request, pb::StepResult* result) {
  result->set_name(
      absl::StrCat(request.deployment(), "/steps/", request.step()));
  result->set_number(request.step());
  result->set_epoch(request.epoch());
  SetLoss(result);
  result->set_duration_seconds(1);
  result->mutable_timing()->set_run_seconds(1);
  result->mutable_timing()->set_collective_seconds(1);
  result->mutable_timing()->set_commit_call_seconds(1);
}

void AnswerRun(pb::RunResponse* response) {
  SetLoss(response);
  response->set_hash(1);
  response->set_seconds(1);
  response->set_collective_seconds(1);
}

class EchoWorker final : public pb::Worker::Service {
 public:
  grpc::Status Run(grpc::ServerContext*, const pb::RunRequest*,
                   pb::RunResponse* response) override {
    AnswerRun(response);
    return grpc::Status::OK;
  }
  grpc::Status Steps(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<pb::StepsResponse, pb::StepsRequest>* stream)
      override {
    pb::StepsRequest request;
    while (stream->Read(&request)) {
      pb::StepsResponse response;
      for (const pb::StepsRequest::Step& step : request.steps()) {
        pb::StepsResponse::Step& answer = *response.add_steps();
        answer.set_step(step.run().step());
        AnswerRun(answer.mutable_run());
        answer.set_commit_seconds(1);
      }
      if (!stream->Write(response)) {
        break;
      }
    }
    return grpc::Status::OK;
  }
};

// What a coordinator tells a worker of a step.
void FillRun(const pb::StepRequest& request, pb::RunRequest* run) {
  run->mutable_gang()->set_deployment(request.deployment());
  run->mutable_gang()->set_epoch(request.epoch());
  run->mutable_gang()->set_request_id(request.request_id());
  run->set_step(request.step());
  run->set_program(request.train().program());
  run->set_mode(pb::RunRequest::MODE_TRAIN);
  *run->mutable_inputs() = request.train().inputs();
  run->mutable_inputs()->MergeFrom(request.train().targets());
  run->set_expected_hash(1);
  run->set_random_step(request.step());
}

// Streams to all workers, for one step after the other. Send and Receive may
// run at the same time, each in one thread.
class WorkerStreams {
 public:
  explicit WorkerStreams(const std::vector<WorkerStub>& stubs) {
    for (const WorkerStub& stub : stubs) {
      contexts_.push_back(std::make_unique<grpc::ClientContext>());
      streams_.push_back(stub->Steps(contexts_.back().get()));
    }
  }
  ~WorkerStreams() {
    for (size_t i = 0; i < streams_.size(); ++i) {
      contexts_[i]->TryCancel();
      streams_[i]->Finish();
    }
  }

  bool Send(const pb::StepRequest& request) {
    pb::StepsRequest message;
    pb::StepsRequest::Step& step = *message.add_steps();
    FillRun(request, step.mutable_run());
    *step.mutable_commit()->mutable_optimizer() = request.train().optimizer();
    bool sent = true;
    for (const auto& stream : streams_) {
      sent = stream->Write(message) && sent;
    }
    return sent;
  }
  bool Receive() {
    bool received = true;
    pb::StepsResponse message;
    for (const auto& stream : streams_) {
      received = stream->Read(&message) && received;
    }
    return received;
  }

 private:
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
  std::vector<std::unique_ptr<
      grpc::ClientReaderWriter<pb::StepsRequest, pb::StepsResponse>>>
      streams_;
};

grpc::Status WorkerGone() {
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "a worker is gone");
}

class EchoCoordinator final : public pb::ShardingCoordinator::Service {
 public:
  EchoCoordinator(const std::vector<std::string>& workers, RelayBy relay_by)
      : relay_by_(relay_by) {
    for (const std::string& worker : workers) {
      stubs_.push_back(pb::Worker::NewStub(
          grpc::CreateChannel(worker, grpc::InsecureChannelCredentials())));
    }
  }

  grpc::Status Step(grpc::ServerContext*, const pb::StepRequest* request,
                    pb::StepResult* result) override {
    AnswerStep(*request, result);
    if (stubs_.empty()) {
      return grpc::Status::OK;
    }
    return relay_by_ == RelayBy::kCalls ? Call(*request) : Pass(*request);
  }

  grpc::Status Train(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<pb::TrainResponse, pb::TrainRequest>* stream)
      override {
    return stubs_.empty() ? Answer(stream) : Relay(stream);
  }

 private:
  grpc::Status Call(const pb::StepRequest& request) {
    pb::RunRequest run;
    FillRun(request, &run);
    struct Pending {
      grpc::ClientContext context;
      pb::RunResponse response;
      grpc::Status status;
    };
    std::vector<Pending> calls(stubs_.size());
    absl::BlockingCounter left(static_cast<int>(stubs_.size()));
    for (size_t i = 0; i < stubs_.size(); ++i) {
      Pending& call = calls[i];
      stubs_[i]->async()->Run(&call.context, &run, &call.response,
                              [&call, &left](grpc::Status status) {
                                call.status = std::move(status);
                                left.DecrementCount();
                              });
    }
    left.Wait();
    for (const Pending& call : calls) {
      if (!call.status.ok()) {
        return call.status;
      }
    }
    return grpc::Status::OK;
  }

  grpc::Status Pass(const pb::StepRequest& request) {
    absl::MutexLock lock(&mu_);
    if (streams_ == nullptr) {
      streams_ = std::make_unique<WorkerStreams>(stubs_);
    }
    return streams_->Send(request) && streams_->Receive() ? grpc::Status::OK
                                                          : WorkerGone();
  }

  using TrainStream =
      grpc::ServerReaderWriter<pb::TrainResponse, pb::TrainRequest>;

  static bool WriteAnswer(const pb::StepRequest& request, TrainStream* stream) {
    pb::TrainResponse response;
    AnswerStep(request, response.add_steps());
    return stream->Write(response);
  }

  static grpc::Status Answer(TrainStream* stream) {
    pb::TrainRequest request;
    while (stream->Read(&request)) {
      for (const pb::StepRequest& step : request.steps()) {
        WriteAnswer(step, stream);
      }
    }
    return grpc::Status::OK;
  }

  // This thread passes steps on, another one the answers back.
  grpc::Status Relay(TrainStream* stream) {
    WorkerStreams workers(stubs_);
    absl::Mutex mu;
    std::vector<pb::StepRequest> under_way;  // that have no answer yet
    bool ended = false;
    std::thread answers([&] {
      const auto some = [&] { return !under_way.empty() || ended; };
      while (true) {
        std::vector<pb::StepRequest> steps;
        {
          absl::MutexLock lock(&mu);
          mu.Await(absl::Condition(&some));
          steps.swap(under_way);
        }
        if (steps.empty()) {
          return;
        }
        for (const pb::StepRequest& step : steps) {
          if (!workers.Receive() || !WriteAnswer(step, stream)) {
            return;
          }
        }
      }
    });
    pb::TrainRequest request;
    while (stream->Read(&request)) {
      for (const pb::StepRequest& step : request.steps()) {
        workers.Send(step);
        absl::MutexLock lock(&mu);
        under_way.push_back(step);
      }
    }
    {
      absl::MutexLock lock(&mu);
      ended = true;
    }
    answers.join();
    return grpc::Status::OK;
  }

  const RelayBy relay_by_;
  std::vector<WorkerStub> stubs_;
  absl::Mutex mu_;  // one step at a time
  std::unique_ptr<WorkerStreams> streams_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

struct EchoServer::State {
  explicit State(const EchoOptions& options)
      : coordinator(options.workers, options.relay_by) {}
  EchoWorker worker;
  EchoCoordinator coordinator;
  std::string address;
  std::unique_ptr<grpc::Server> server;
};

absl::StatusOr<std::unique_ptr<EchoServer>> EchoServer::Start(
    const EchoOptions& options) {
  auto state = std::make_unique<State>(options);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(&state->worker);
  builder.RegisterService(&state->coordinator);
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat(
        "listen: expected an address that is free, got: ", options.listen));
  }
  state->address = absl::StrCat(
      options.listen.substr(0, options.listen.rfind(':')), ":", port);
  return std::unique_ptr<EchoServer>(new EchoServer(std::move(state)));
}

EchoServer::EchoServer(std::unique_ptr<State> state)
    : state_(std::move(state)) {}

EchoServer::~EchoServer() {
  state_->server->Shutdown(absl::ToChronoTime(absl::Now()));
}

const std::string& EchoServer::address() const { return state_->address; }

}  // namespace shardplane
