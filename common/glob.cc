#include "common/glob.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace shardplane {
namespace {

// No character: the hyphen that makes a range of its neighbours in a set.
constexpr char32_t kRangeHyphen = 0xffffffff;

int SequenceLength(unsigned char lead) {
  if (lead >= 0xf0) return 4;
  if (lead >= 0xe0) return 3;
  return lead >= 0xc0 ? 2 : 1;
}

// A byte that is no UTF-8 becomes a character of its own.
std::u32string Decode(absl::string_view text) {
  std::u32string characters;
  for (size_t i = 0; i < text.size();) {
    const unsigned char lead = text[i];
    const size_t length = SequenceLength(lead);
    if (length == 1 || i + length > text.size()) {
      characters.push_back(lead);
      ++i;
      continue;
    }
    char32_t character = lead & (0x7f >> length);
    for (size_t j = 1; j < length; ++j) {
      character = character << 6 | (text[i + j] & 0x3f);
    }
    characters.push_back(character);
    i += length;
  }
  return characters;
}

struct CharacterSet {
  bool negated = false;
  std::vector<std::pair<char32_t, char32_t>> ranges;  // both ends included

  bool Contains(char32_t c) const {
    const bool listed =
        std::any_of(ranges.begin(), ranges.end(), [c](const auto& range) {
          return range.first <= c && c <= range.second;
        });
    return listed != negated;
  }
};

struct Token {
  enum Kind { kCharacter, kAny, kStar, kSet };
  Kind kind = kCharacter;
  char32_t character = 0;
  CharacterSet set;

  bool Matches(char32_t c) const {
    if (kind == kSet) return set.Contains(c);
    return kind == kAny || c == character;
  }
};

// Splits the inside of `[…]` at the hyphens that make ranges, as Python does:
// the first character never is one, nor are the two after a range's hyphen.
std::vector<std::u32string> SplitAtRanges(const std::u32string& inside) {
  std::vector<std::u32string> parts;
  size_t begin = 0;
  size_t from = inside[0] == U'!' ? 2 : 1;
  for (size_t hyphen = inside.find(U'-', from); hyphen != std::u32string::npos;
       hyphen = inside.find(U'-', from)) {
    parts.push_back(inside.substr(begin, hyphen - begin));
    begin = hyphen + 1;
    from = hyphen + 3;
  }
  if (begin < inside.size()) {
    parts.push_back(inside.substr(begin));
  } else {
    parts.back().push_back(U'-');
  }
  return parts;
}

// Joins them again without the ranges that hold nothing ("z-a"), the others'
// hyphens marked.
std::u32string JoinRanges(std::vector<std::u32string> parts) {
  for (size_t k = parts.size() - 1; k > 0; --k) {
    if (parts[k - 1].back() <= parts[k].front()) continue;
    parts[k - 1].pop_back();
    parts[k - 1] += parts[k].substr(1);
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(k));
  }
  std::u32string joined = parts[0];
  for (size_t k = 1; k < parts.size(); ++k) {
    joined.push_back(kRangeHyphen);
    joined += parts[k];
  }
  return joined;
}

CharacterSet ParseSet(const std::u32string& inside) {
  const std::u32string marked = JoinRanges(SplitAtRanges(inside));
  CharacterSet set;
  size_t i = 0;
  if (!marked.empty() && marked[0] == U'!') {
    set.negated = true;
    i = 1;
  }
  const size_t first = i;
  while (i < marked.size()) {
    if (marked[i] == kRangeHyphen && i == first) {
      set.ranges.emplace_back(U'-', U'-');
      ++i;
    } else if (i + 2 < marked.size() && marked[i + 1] == kRangeHyphen) {
      set.ranges.emplace_back(marked[i], marked[i + 2]);
      i += 3;
    } else {
      set.ranges.emplace_back(marked[i], marked[i]);
      ++i;
    }
  }
  return set;
}

// Where the set that opens before `begin` closes; npos if it does not. A `]`
// right after `[` or `[!` is a member.
size_t FindSetEnd(const std::u32string& pattern, size_t begin) {
  size_t i = begin;
  if (i < pattern.size() && pattern[i] == U'!') ++i;
  if (i < pattern.size() && pattern[i] == U']') ++i;
  return pattern.find(U']', i);
}

std::vector<Token> Parse(const std::u32string& pattern) {
  std::vector<Token> tokens;
  for (size_t i = 0; i < pattern.size(); ++i) {
    Token token{.character = pattern[i]};
    if (pattern[i] == U'*') {
      token.kind = Token::kStar;
    } else if (pattern[i] == U'?') {
      token.kind = Token::kAny;
    } else if (pattern[i] == U'[') {
      const size_t end = FindSetEnd(pattern, i + 1);
      if (end != std::u32string::npos) {
        token.kind = Token::kSet;
        token.set = ParseSet(pattern.substr(i + 1, end - i - 1));
        i = end;
      }
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

bool GlobMatch(absl::string_view pattern, absl::string_view name) {
  if (pattern == "*") return true;
  if (pattern.find_first_of("*?[") == absl::string_view::npos) {
    return pattern == name;
  }
  const std::vector<Token> tokens = Parse(Decode(pattern));
  const std::u32string text = Decode(name);
  // On a mismatch only the last star needs to take one character more: what
  // an earlier one takes, it could take as well.
  size_t t = 0;
  size_t c = 0;
  size_t star = tokens.size();
  size_t star_end = 0;
  while (c < text.size()) {
    if (t < tokens.size() && tokens[t].kind == Token::kStar) {
      star = t++;
      star_end = c;
    } else if (t < tokens.size() && tokens[t].Matches(text[c])) {
      ++t;
      ++c;
    } else if (star < tokens.size()) {
      t = star + 1;
      c = ++star_end;
    } else {
      return false;
    }
  }
  while (t < tokens.size() && tokens[t].kind == Token::kStar) ++t;
  return t == tokens.size();
}

}  // namespace shardplane
