// What the ranks of a test communicate by: as all groups do by default, or as
// SHARDPLANE_TEST_COLLECTIVES says, which targets set.
#ifndef SHARDPLANE_WORKER_TRANSPORT_FOR_TEST_H_
#define SHARDPLANE_WORKER_TRANSPORT_FOR_TEST_H_

#include <cstdlib>

#include "worker/transport.h"

namespace shardplane {

inline TransportChoice TransportForTest() {
  const char* choice = std::getenv("SHARDPLANE_TEST_COLLECTIVES");
  return ParseTransportChoice(choice == nullptr ? "auto" : choice).value();
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_TRANSPORT_FOR_TEST_H_
