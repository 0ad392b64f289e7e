// shardplane.v1.Rendezvous over a Rendezvous.
#ifndef SHARDPLANE_COORDINATOR_RENDEZVOUS_SERVICE_H_
#define SHARDPLANE_COORDINATOR_RENDEZVOUS_SERVICE_H_

#include "coordinator/rendezvous.h"
#include "shardplane/v1/coordinator.grpc.pb.h"

namespace shardplane {

// Thread-safe. Borrows the store. Codes are the store's.
class RendezvousService final : public v1::Rendezvous::Service {
 public:
  explicit RendezvousService(Rendezvous* rendezvous)
      : rendezvous_(rendezvous) {}

  grpc::Status StoreSet(grpc::ServerContext* context,
                        const v1::StoreSetRequest* request,
                        google::protobuf::Empty* response) override;
  grpc::Status StoreGet(grpc::ServerContext* context,
                        const v1::StoreGetRequest* request,
                        v1::StoreGetResponse* response) override;
  grpc::Status StoreAdd(grpc::ServerContext* context,
                        const v1::StoreAddRequest* request,
                        v1::StoreAddResponse* response) override;
  grpc::Status StoreCompareSet(grpc::ServerContext* context,
                               const v1::StoreCompareSetRequest* request,
                               v1::StoreGetResponse* response) override;
  grpc::Status StoreDelete(grpc::ServerContext* context,
                           const v1::StoreDeleteRequest* request,
                           v1::StoreCheckResponse* response) override;
  grpc::Status StoreCheck(grpc::ServerContext* context,
                          const v1::StoreCheckRequest* request,
                          v1::StoreCheckResponse* response) override;

 private:
  Rendezvous* const rendezvous_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_RENDEZVOUS_SERVICE_H_
