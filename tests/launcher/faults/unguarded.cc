// Touches what a mutex guards without the mutex.
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

class Counter {
 public:
  void Add() { ++count_; }

 private:
  absl::Mutex mu_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
};

int main() {
  Counter counter;
  counter.Add();
  return 0;
}
