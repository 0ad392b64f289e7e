#include "coordinator/grpc_worker_client.h"

#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/errors.h"
#include "coordinator/grpc_step_stream.h"
#include "coordinator/local_step_stream.h"
#include "coordinator/step_stream.h"
#include "coordinator/worker_messages.h"
#include "grpcpp/grpcpp.h"
#include "proto/convert/program.h"
#include "proto/convert/report.h"
#include "proto/convert/types.h"
#include "proto/grpc_status.h"
#include "proto/tensor_stream.h"
#include "shardplane/v1/worker.grpc.pb.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

void SetDeadline(grpc::ClientContext& context, const CallOptions& options) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
}

// One unary call; deletes itself when it is done.
template <typename Request, typename Response>
struct UnaryCall {
  grpc::ClientContext context;
  Request request;
  Response response;
  Cancellation::Registration registration;

  template <typename Method, typename Convert>
  static void Start(Request request, const CallOptions& options,
                    const Method& method, Convert convert) {
    auto* call = new UnaryCall;
    call->request = std::move(request);
    SetDeadline(call->context, options);
    if (!options.traceparent.empty()) {
      call->context.AddMetadata("traceparent", options.traceparent);
    }
    call->registration.Set(options.cancellation,
                           [call] { call->context.TryCancel(); });
    method(&call->context, &call->request, &call->response,
           [call, convert](grpc::Status status) {
             call->registration.Reset();
             convert(FromGrpcStatus(status), call->response);
             delete call;
           });
  }
};

class GrpcTensorSink : public TensorSink {
 public:
  GrpcTensorSink(pb::Worker::Stub& stub, const GangRef& gang,
                 const std::string& key, const TensorType& type,
                 const CallOptions& options) {
    SetDeadline(context_, options);
    registration_.Set(options.cancellation, [this] { context_.TryCancel(); });
    writer_ = stub.StageTensor(&context_, &response_);
    pb::StageTensorRequest message;
    *message.mutable_header()->mutable_gang() = ToProto(gang);
    message.mutable_header()->set_key(key);
    *message.mutable_header()->mutable_type() = ToProto(type);
    writer_->Write(message);
  }
  ~GrpcTensorSink() override {
    if (!finished_) {
      context_.TryCancel();
      writer_->Finish();
    }
  }
  bool Write(const pb::TensorData& chunk) override {
    pb::StageTensorRequest message;
    *message.mutable_chunk() = chunk;
    return writer_->Write(message);
  }
  absl::Status Finish() override {
    finished_ = true;
    writer_->WritesDone();
    return FromGrpcStatus(writer_->Finish());
  }

 private:
  grpc::ClientContext context_;
  google::protobuf::Empty response_;
  std::unique_ptr<grpc::ClientWriter<pb::StageTensorRequest>> writer_;
  bool finished_ = false;
  Cancellation::Registration registration_;  // last: goes before the context
};

class GrpcTensorFlow : public TensorFlow {
 public:
  GrpcTensorFlow(pb::Worker::Stub& stub, const GangRef& gang,
                 const TensorKey& key, const CallOptions& options) {
    SetDeadline(context_, options);
    registration_.Set(options.cancellation, [this] { context_.TryCancel(); });
    pb::ReadTensorRequest request;
    *request.mutable_gang() = ToProto(gang);
    *request.mutable_tensor() = ToProto(key);
    reader_ = stub.ReadTensor(&context_, request);
  }
  ~GrpcTensorFlow() override {
    if (!finished_) {
      context_.TryCancel();
      reader_->Finish();
    }
  }
  absl::StatusOr<LocalTensor> Finish() override {
    absl::StatusOr<LocalTensor> tensor = Receive();
    // A stream that has ended has a status: to cancel it now may hide that.
    if (!tensor.ok() && !ended_) {
      context_.TryCancel();
    }
    finished_ = true;
    // The worker's own word goes before what we make of a stream cut short.
    const absl::Status status = FromGrpcStatus(reader_->Finish());
    return status.ok() || absl::IsCancelled(status) ? std::move(tensor)
                                                    : status;
  }

 private:
  absl::StatusOr<LocalTensor> Receive() {
    pb::ReadTensorResponse first;
    if (!Read(&first)) {
      return absl::InternalError("header: expected one, got: end of stream");
    }
    SP_RETURN_IF_ERROR(CheckIsHeader(first));
    LocalTensor tensor;
    SP_ASSIGN_OR_RETURN(const TensorType type,
                        FromProto(first.header().type(), "header.type"));
    SP_ASSIGN_OR_RETURN(tensor.global,
                        FromProto(first.header().global(), "header.global"));
    SP_ASSIGN_OR_RETURN(tensor.spec,
                        FromProto(first.header().spec(), "header.spec"));
    SP_ASSIGN_OR_RETURN(tensor.local, ReceiveChunks<pb::ReadTensorResponse>(
                                          type, [this](auto* message) {
                                            return Read(message);
                                          }));
    return tensor;
  }

  bool Read(pb::ReadTensorResponse* message) {
    ended_ = !reader_->Read(message);
    return !ended_;
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<pb::ReadTensorResponse>> reader_;
  bool ended_ = false;  // Read has said so
  bool finished_ = false;
  Cancellation::Registration registration_;
};

class GrpcWorkerClient : public WorkerClient {
 public:
  GrpcWorkerClient(const std::string& address, bool local_steps)
      : local_steps_(local_steps) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    // A restarted worker must not inherit the back-off of the dead one.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    channel_ = grpc::CreateCustomChannel(
        address, grpc::InsecureChannelCredentials(), arguments);
    stub_ = pb::Worker::NewStub(channel_);
  }
  ~GrpcWorkerClient() override {
    CloseSteps(GangEpoch{UINT64_MAX});
    open_streams_->AwaitNone();
  }

  void JoinGang(const GangRef& gang, const JoinGangCall& call,
                const CallOptions& options, Done done) override {
    pb::JoinGangRequest request;
    *request.mutable_gang() = ToProto(gang);
    request.set_rank(call.rank);
    *request.mutable_mesh() = ToProto(call.mesh);
    request.set_rendezvous(call.rendezvous);
    request.set_timeout_ms(absl::ToInt64Milliseconds(call.timeout));
    Send(std::move(request), options, &Async::JoinGang, std::move(done));
  }

  void LeaveGang(const GangRef& gang, const CallOptions& options,
                 Done done) override {
    CloseSteps(gang.epoch);
    pb::LeaveGangRequest request;
    *request.mutable_gang() = ToProto(gang);
    Send(std::move(request), options, &Async::LeaveGang, std::move(done));
  }

  void Abort(const GangRef& gang, const std::string& reason,
             const CallOptions& options, Done done) override {
    pb::AbortRequest request;
    *request.mutable_gang() = ToProto(gang);
    request.set_reason(reason);
    Send(std::move(request), options, &Async::Abort, std::move(done));
  }

  void Materialize(const GangRef& gang, const MaterializeCall& call,
                   const CallOptions& options,
                   Answer<std::vector<CollectiveCount>> done) override {
    UnaryCall<pb::MaterializeRequest, pb::MaterializeResponse>::Start(
        ToProto(gang, call), options,
        [this](auto... args) { stub_->async()->Materialize(args...); },
        [done](const absl::Status& status, const auto& response) {
          status.ok()
              ? done(CountsFromProto(response.collectives(), "collectives"))
              : done(status);
        });
  }

  void LoadProgram(const GangRef& gang, const ProgramId& id,
                   const ShardedProgram& program, const CallOptions& options,
                   Done done) override {
    pb::LoadProgramRequest request;
    *request.mutable_gang() = ToProto(gang);
    request.set_program(id.value);
    *request.mutable_body() = ToProto(program);
    Send(std::move(request), options, &Async::LoadProgram, std::move(done));
  }

  void Run(const GangRef& gang, const RunCall& call, const CallOptions& options,
           Answer<RunOutcome> done) override {
    UnaryCall<pb::RunRequest, pb::RunResponse>::Start(
        ToProto(gang, call), options,
        [this](auto... args) { stub_->async()->Run(args...); },
        [done](const absl::Status& status, const auto& response) {
          status.ok() ? done(OutcomeFromProto(response)) : done(status);
        });
  }

  void Commit(const GangRef& gang, const CommitCall& call,
              const CallOptions& options, Done done) override {
    Send(ToProto(gang, call), options, &Async::Commit, std::move(done));
  }

  void Step(const GangRef& gang, const std::shared_ptr<const TrainStep>& step,
            uint64_t expected_hash, const CallOptions& options,
            Answer<StepOutcome> done) override {
    StepsOf(gang)->Add(gang, step, expected_hash, options, std::move(done));
  }

  void GetProgress(const GangRef& gang, const CallOptions& options,
                   Answer<MaterializeProgress> done) override {
    pb::GetProgressRequest request;
    *request.mutable_gang() = ToProto(gang);
    UnaryCall<pb::GetProgressRequest, pb::GetProgressResponse>::Start(
        std::move(request), options,
        [this](auto... args) { stub_->async()->GetProgress(args...); },
        [done](const absl::Status& status, const auto& response) {
          status.ok() ? done(MaterializeProgress{response.bytes_done(),
                                                 response.bytes_total()})
                      : done(status);
        });
  }

  void GetTimeline(const GangRef& gang, StepNumber step,
                   const CallOptions& options,
                   Answer<StepRecording> done) override {
    pb::GetTimelineRequest request;
    *request.mutable_gang() = ToProto(gang);
    request.set_step(step.value);
    UnaryCall<pb::GetTimelineRequest, pb::GetTimelineResponse>::Start(
        std::move(request), options,
        [this](auto... args) { stub_->async()->GetTimeline(args...); },
        [done](const absl::Status& status, const auto& response) {
          status.ok() ? done(RecordingFromProto(response)) : done(status);
        });
  }

  std::unique_ptr<TensorSink> StageTensor(const GangRef& gang,
                                          const std::string& key,
                                          const TensorType& type,
                                          const CallOptions& options) override {
    return std::make_unique<GrpcTensorSink>(*stub_, gang, key, type, options);
  }

  std::unique_ptr<TensorFlow> ReadTensor(const GangRef& gang,
                                         const TensorKey& key,
                                         const CallOptions& options) override {
    return std::make_unique<GrpcTensorFlow>(*stub_, gang, key, options);
  }

 private:
  using Async = pb::Worker::StubInterface::async_interface;

  // A call that answers nothing.
  template <typename Request>
  void Send(Request request, const CallOptions& options,
            void (Async::*method)(grpc::ClientContext*, const Request*,
                                  google::protobuf::Empty*,
                                  std::function<void(grpc::Status)>),
            Done done) {
    UnaryCall<Request, google::protobuf::Empty>::Start(
        std::move(request), options,
        [this, method](auto... args) { (stub_->async()->*method)(args...); },
        [done](const absl::Status& status, const auto&) { done(status); });
  }

  // The stream of that gang, which ends that of an older one.
  std::shared_ptr<StepStream> StepsOf(const GangRef& gang) {
    std::shared_ptr<StepStream> old;
    absl::MutexLock lock(&mu_);
    if (steps_ == nullptr || steps_epoch_ != gang.epoch || steps_->ended()) {
      old = std::exchange(steps_, OpenSteps(gang.incarnation));
      steps_epoch_ = gang.epoch;
    }
    if (old != nullptr) {
      old->Close();
    }
    return steps_;
  }

  std::shared_ptr<StepStream> OpenSteps(Incarnation worker) {
    std::shared_ptr<StepStream> local;
    if (local_steps_) local = OpenLocalStepStream(worker, open_streams_);
    return local != nullptr ? local
                            : OpenGrpcStepStream(channel_, open_streams_);
  }

  // The stream of that gang or of an older one.
  void CloseSteps(GangEpoch epoch) {
    std::shared_ptr<StepStream> closed;
    {
      absl::MutexLock lock(&mu_);
      if (steps_epoch_ <= epoch) {
        closed = std::move(steps_);
      }
    }
    if (closed != nullptr) {
      closed->Close();
    }
  }

  const bool local_steps_;
  std::shared_ptr<grpc::Channel> channel_;  // shared with its calls
  std::unique_ptr<pb::Worker::Stub> stub_;

  // Shared with the streams.
  const std::shared_ptr<StreamCount> open_streams_ =
      std::make_shared<StreamCount>();

  absl::Mutex mu_;
  // Shared with what carries it, until it is over.
  std::shared_ptr<StepStream> steps_ ABSL_GUARDED_BY(mu_);
  GangEpoch steps_epoch_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::shared_ptr<WorkerClient> ConnectToWorker(const std::string& address,
                                              bool local_steps) {
  return std::make_shared<GrpcWorkerClient>(address, local_steps);
}

}  // namespace shardplane
