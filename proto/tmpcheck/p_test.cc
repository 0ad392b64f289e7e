#include <gtest/gtest.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include "tmpcheck/b.grpc.pb.h"
class Impl final : public tmpcheck::S::Service {
  grpc::Status Go(grpc::ServerContext*, const tmpcheck::A*, grpc::ServerWriter<tmpcheck::B>* w) override { tmpcheck::B b; b.add_f(1); w->Write(b); return grpc::Status::OK; }
};
TEST(A, B) { Impl impl; grpc::EnableDefaultHealthCheckService(true); grpc::reflection::InitProtoReflectionServerBuilderPlugin();
 grpc::ServerBuilder sb; sb.RegisterService(&impl); auto s = sb.BuildAndStart();
 auto st = tmpcheck::S::NewStub(s->InProcessChannel({})); grpc::ClientContext c; tmpcheck::A a; auto r = st->Go(&c, a); tmpcheck::B b; EXPECT_TRUE(r->Read(&b)); EXPECT_EQ(b.f(0), 1); EXPECT_TRUE(r->Finish().ok()); }
