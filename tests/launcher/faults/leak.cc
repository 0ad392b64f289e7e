// Memory that nobody frees.
#include <string>

int main() {
  auto* lost = new std::string(1000, 'x');
  const size_t size = lost->size();
  lost = nullptr;
  return size == 1000 ? 0 : 1;
}
