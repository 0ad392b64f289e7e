"""Byte-pair encoding, small: learnt in a second, and encodes any text."""

import collections
import re

# A word with the space before it, a number, signs, or white space.
_PIECES = re.compile(rb" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")
_BYTES = 256


def _pieces(text):
    return _PIECES.findall(text.encode())


def _merged(symbols, pair, new):
    """`symbols` with each `pair` replaced by `new`, from the left."""
    result = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] = new
        else:
            result.append(symbol)
    return result


class Tokenizer:
    """Tokens 0 to 255 are bytes; each later one joins two before it.

        merges [(116, 104), (256, 101)]   "the" -> [257],  "tho" -> [256, 111]
    """

    def __init__(self, merges):
        self._merges = list(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self._merges)}
        self._bytes = [bytes([i]) for i in range(_BYTES)]
        for left, right in self._merges:
            self._bytes.append(self._bytes[left] + self._bytes[right])
        self._known = {}  # piece -> tokens

    @classmethod
    def train(cls, text, vocabulary):
        """Joins the most frequent pair, again and again; among equals, the
        one of the smallest tokens. Fewer tokens if no pair is left."""
        if vocabulary < _BYTES:
            raise ValueError(f"vocabulary: expected at least {_BYTES}, got: "
                             f"{vocabulary}")
        return cls(_learn(collections.Counter(_pieces(text)),
                          vocabulary - _BYTES))

    @property
    def vocabulary(self):
        return len(self._bytes)

    def encode(self, text):
        tokens = []
        for piece in _pieces(text):
            if piece not in self._known:
                self._known[piece] = self._encode(piece)
            tokens += self._known[piece]
        return tokens

    def _encode(self, piece):
        symbols = list(piece)
        while len(symbols) > 1:
            rank, pair = min((self._ranks.get(pair, len(self._ranks)), pair)
                             for pair in zip(symbols, symbols[1:]))
            if rank == len(self._ranks):
                break
            symbols = _merged(symbols, pair, _BYTES + rank)
        return symbols

    def decode(self, tokens):
        """Bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self._bytes[t] for t in tokens).decode(
            errors="replace")


def _learn(counts, merges):
    """The `merges` pairs to join, for pieces that stand that often."""
    words = [list(piece) for piece in counts]
    times = list(counts.values())
    pairs = collections.Counter()
    where = collections.defaultdict(set)  # pair -> indices of words

    def note(index, sign):
        for pair in zip(words[index], words[index][1:]):
            pairs[pair] += sign * times[index]
            where[pair].add(index)

    for index in range(len(words)):
        note(index, 1)
    learnt = []
    while len(learnt) < merges:
        best = max(pairs, key=lambda pair: (pairs[pair], -pair[0], -pair[1]),
                   default=None)
        if best is None or pairs[best] == 0:
            break
        new = _BYTES + len(learnt)
        learnt.append(best)
        for index in where.pop(best):
            note(index, -1)
            words[index] = _merged(words[index], best, new)
            note(index, 1)
        del pairs[best]
    return learnt
