#include "worker/kernels/host_kernels.h"

#include "worker/kernels/bodies.h"

namespace shardplane {
namespace {

template <typename F>
absl::Status EachBlock(int64_t blocks, F f) {
  for (int64_t i = 0; i < blocks; ++i) f(HostBlock(i, blocks));
  return absl::OkStatus();
}

// f.operator()<T>(), and <T, kPacks>(), of the kernel that a GPU would run.
template <typename F>
absl::Status WithType(Element element, F f) {
  return element == Element::kF32 ? f.template operator()<float>()
                                  : f.template operator()<Bf16>();
}

template <typename T, typename Args, typename F>
absl::Status WithPacks(Element element, const Args& args, F f) {
  switch (PacksOf(args.columns, args.packed, element)) {
    case 1:
      return f.template operator()<T, 1>();
    case 2:
      return f.template operator()<T, 2>();
    case 4:
      return f.template operator()<T, 4>();
    case 8:
      return f.template operator()<T, 8>();
    default:
      return absl::InternalError("a kernel's row: too long");
  }
}

class Launcher : public KernelLauncher {
 public:
#define SHARDPLANE_RUN(name, Args, Body)                                       \
  absl::Status Launch(Element element, int64_t blocks, const Args& args)       \
      override {                                                               \
    return WithType(element, [&]<typename T>() {                               \
      return EachBlock(blocks,                                                 \
                       [&](const HostBlock& block) { Body<T>(block, args); }); \
    });                                                                        \
  }
  SHARDPLANE_KERNELS(SHARDPLANE_RUN)
#undef SHARDPLANE_RUN

#define SHARDPLANE_RUN(name, Args, Body)                                 \
  absl::Status Launch(Element element, int64_t blocks, const Args& args) \
      override {                                                         \
    return WithType(element, [&]<typename T>() {                         \
      return WithPacks<T>(element, args, [&]<typename, int kPacks>() {   \
        return EachBlock(blocks, [&](const HostBlock& block) {           \
          Body<T, kPacks>(block, args);                                  \
        });                                                              \
      });                                                                \
    });                                                                  \
  }
  SHARDPLANE_ROW_KERNELS(SHARDPLANE_RUN)
#undef SHARDPLANE_RUN
};

}  // namespace

KernelLauncher& HostKernels() {
  static auto* const launcher = new Launcher();
  return *launcher;
}

}  // namespace shardplane
