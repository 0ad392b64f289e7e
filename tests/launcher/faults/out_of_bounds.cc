// Reads what lies behind a vector.
#include <vector>

int main() {
  std::vector<int> values(3, 1);
  return values.data()[values.size()];
}
