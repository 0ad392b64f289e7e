#include "coordinator/grpc_worker_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "grpcpp/grpcpp.h"
#include "proto/convert/module.h"
#include "proto/convert/optimizer.h"
#include "proto/convert/program.h"
#include "proto/convert/report.h"
#include "proto/grpc_status.h"
#include "proto/tensor_stream.h"
#include "shardplane/v1/worker.grpc.pb.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

pb::GangRef ToProto(const GangRef& gang) {
  pb::GangRef message;
  message.set_deployment(ResourceName(gang.deployment));
  message.set_epoch(gang.epoch.value);
  message.set_incarnation(gang.incarnation.value);
  message.set_request_id(gang.request_id);
  return message;
}

struct TensorKeyToProto {
  pb::TensorRef ref;
  void operator()(const ParameterKey& key) { ref.set_parameter(key.fqn); }
  void operator()(const GradientKey& key) { ref.set_gradient(key.fqn); }
  void operator()(const OutputKey& key) { ref.set_output(key.index); }
  void operator()(const InputGradientKey& key) {
    ref.set_input_gradient(key.index);
  }
};

pb::MaterializeRequest ToProto(const GangRef& gang,
                               const MaterializeCall& call) {
  pb::MaterializeRequest request;
  *request.mutable_gang() = ToProto(gang);
  for (const MaterializeCall::Source& source : call.parameters) {
    pb::MaterializeRequest::Source& message = *request.add_parameters();
    message.set_fqn(source.fqn);
    *message.mutable_type() = ToProto(source.type);
    *message.mutable_spec() = ToProto(source.spec);
    message.set_requires_grad(source.requires_grad);
    if (source.initializer.has_value()) {
      *message.mutable_initializer() = ToProto(*source.initializer);
    }
  }
  request.set_plan_mesh_dim(call.plan_mesh_dim);
  if (call.src_data_rank.has_value()) {
    request.set_src_data_rank(*call.src_data_rank);
  }
  request.set_seed(call.seed);
  return request;
}

pb::RunRequest ToProto(const GangRef& gang, const RunCall& call) {
  pb::RunRequest request;
  *request.mutable_gang() = ToProto(gang);
  request.set_step(call.step.value);
  request.set_program(call.program.value);
  static constexpr pb::RunRequest::Mode kModes[] = {
      pb::RunRequest::MODE_FORWARD, pb::RunRequest::MODE_TRAIN,
      pb::RunRequest::MODE_NORM};
  request.set_mode(kModes[static_cast<int>(call.mode)]);
  for (const TensorSource& input : call.inputs) {
    *request.add_inputs() =
        std::visit([](const auto& tensor) { return ToProto(tensor); }, input);
  }
  request.set_accumulate(call.accumulate);
  request.set_expected_hash(call.expected_hash);
  request.set_random_step(call.random_step.value);
  request.set_gradient_norm(call.gradient_norm);
  return request;
}

pb::CommitRequest ToProto(const GangRef& gang, const CommitCall& call) {
  pb::CommitRequest request;
  *request.mutable_gang() = ToProto(gang);
  request.set_step(call.step.value);
  if (call.optimizer.has_value()) {
    *request.mutable_optimizer() = ToProto(*call.optimizer);
  }
  if (call.clip_norm.has_value()) request.set_clip_norm(*call.clip_norm);
  for (const LoadEntry& entry : call.load_state) {
    auto& message = *request.mutable_load_state()->add_entries();
    message.set_fqn(entry.fqn);
    message.set_upload(entry.upload);
  }
  request.set_reset_optimizer(call.reset_optimizer);
  request.set_abandon(call.abandon);
  return request;
}

absl::StatusOr<RunOutcome> OutcomeFromProto(const pb::RunResponse& response) {
  RunOutcome outcome;
  SP_ASSIGN_OR_RETURN(outcome.collectives,
                      CountsFromProto(response.collectives(), "collectives"));
  if (response.has_loss()) {
    SP_ASSIGN_OR_RETURN(TensorSource loss, FromProto(response.loss(), "loss"));
    if (!std::holds_alternative<HostTensor>(loss)) {
      return absl::InternalError("loss: expected it inline, got: an upload");
    }
    outcome.loss = std::get<HostTensor>(std::move(loss));
  }
  outcome.gradient_norm = response.gradient_norm();
  outcome.seconds = response.seconds();
  outcome.collective_seconds = response.collective_seconds();
  return outcome;
}

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
    TensorKeyToProto to_proto;
    std::visit(to_proto, key);
    *request.mutable_tensor() = std::move(to_proto.ref);
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
  explicit GrpcWorkerClient(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    // A restarted worker must not inherit the back-off of the dead one.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    stub_ = pb::Worker::NewStub(grpc::CreateCustomChannel(
        address, grpc::InsecureChannelCredentials(), arguments));
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

  std::unique_ptr<pb::Worker::Stub> stub_;
};

}  // namespace

std::shared_ptr<WorkerClient> ConnectToWorker(const std::string& address) {
  return std::make_shared<GrpcWorkerClient>(address);
}

}  // namespace shardplane
