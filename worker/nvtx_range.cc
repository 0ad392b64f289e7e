#include "worker/nvtx_range.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "nvtx3/nvToolsExt.h"

namespace shardplane {
namespace {

nvtxEventAttributes_t Attributes() {
  nvtxEventAttributes_t attributes = {};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  return attributes;
}

}  // namespace

NvtxDomain::NvtxDomain() : domain_(nvtxDomainCreateA("shardplane")) {}

NvtxDomain::~NvtxDomain() { nvtxDomainDestroy(domain_); }

nvtxStringRegistration_st* NvtxDomain::Register(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto [found, is_new] = names_.try_emplace(name, nullptr);
  if (is_new) found->second = nvtxDomainRegisterStringA(domain_, name.c_str());
  return found->second;
}

void NvtxDomain::Push(const char* name) const {
  nvtxEventAttributes_t attributes = Attributes();
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = name;
  nvtxDomainRangePushEx(domain_, &attributes);
}

void NvtxDomain::Push(nvtxStringRegistration_st* name) const {
  nvtxEventAttributes_t attributes = Attributes();
  attributes.messageType = NVTX_MESSAGE_TYPE_REGISTERED;
  attributes.message.registered = name;
  nvtxDomainRangePushEx(domain_, &attributes);
}

void NvtxDomain::Pop() const { nvtxDomainRangePop(domain_); }

NvtxNames::NvtxNames(NvtxDomain* domain, const std::vector<std::string>& names)
    : domain_(domain) {
  if (domain == nullptr) return;
  for (size_t i = 0; i < names.size(); ++i) {
    Item item{.shown = !names[i].empty()};
    if (item.shown) item.name = domain->Register(names[i]);
    if (i > 0) item.run = items_.back().run + (names[i] != names[i - 1]);
    items_.push_back(item);
  }
}

void NvtxRange::PushNumbered(const char* name, uint64_t number) {
  domain_->Push(absl::StrCat(name, " ", number).c_str());
}

void NvtxRange::PushItem(const NvtxNames& names, size_t i) {
  const NvtxNames::Item& item = names.items_[i];
  if (item.shown) {
    domain_->Push(item.name);
  } else {
    domain_ = nullptr;
  }
}

void NvtxRuns::Move(size_t i) {
  const NvtxNames::Item& item = names_.items_[i];
  if (std::exchange(run_, item.run) == item.run) return;
  End();
  if (!item.shown) return;
  names_.domain_->Push(item.name);
  open_ = true;
}

}  // namespace shardplane
