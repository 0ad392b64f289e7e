"""What the language model reads: the licence texts of Debian's base-files.

They are on every Debian machine. Three licences are held out, whole, and no
version of them is among the training texts; `shared_runs` measures what the
two sides still have in common.
"""

import dataclasses
import pathlib
import re

import torch

from shardplane.demos.lm_tokenizer import Tokenizer

FOLDER = pathlib.Path("/usr/share/common-licenses")
TRAINING = ("BSD", "GFDL-1.2", "GFDL-1.3", "GPL-1", "GPL-2", "GPL-3",
            "LGPL-2", "LGPL-2.1", "LGPL-3", "MPL-1.1", "MPL-2.0")
HELD_OUT = ("Apache-2.0", "Artistic", "CC0-1.0")
RUN = 8  # words in a row that count as a shared passage


def read(names, folder=FOLDER):
    """The texts, one paragraph a line: how lines are broken says little."""
    paragraphs = []
    for name in names:
        path = pathlib.Path(folder, name)
        if not path.is_file():
            raise FileNotFoundError(
                f"expected the licence {name} of Debian's package base-files "
                f"at {path}, got: no such file")
        for paragraph in path.read_text("utf-8").split("\n\n"):
            paragraphs.append(" ".join(paragraph.split()))
    return "\n".join(filter(None, paragraphs)) + "\n"


def shared_runs(text, other, run=RUN):
    """The part of the runs of `run` words in `text` that `other` has too."""
    def runs(source):
        words = re.findall(r"\w+", source.lower())
        return {tuple(words[i:i + run]) for i in range(len(words) - run + 1)}
    own = runs(text)
    return len(own & runs(other)) / max(len(own), 1)


@dataclasses.dataclass
class Corpus:
    """Both sides as tokens, i64[count], and what a reader must know."""

    tokenizer: Tokenizer
    train: torch.Tensor
    held_out: torch.Tensor
    held_out_bytes: int
    shared: float  # see shared_runs

    @classmethod
    def load(cls, vocabulary, folder=FOLDER):
        """The tokenizer learns from the training texts alone."""
        train, held_out = read(TRAINING, folder), read(HELD_OUT, folder)
        tokenizer = Tokenizer.train(train, vocabulary)
        return cls(tokenizer, torch.tensor(tokenizer.encode(train)),
                   torch.tensor(tokenizer.encode(held_out)),
                   len(held_out.encode()), shared_runs(held_out, train))

    def unigram_perplexity(self):
        """Of the held-out tokens for one who knows only how often each token
        stands in the training texts (plus one)."""
        counts = torch.bincount(self.train,
                                minlength=self.tokenizer.vocabulary) + 1
        log_p = (counts / counts.sum(dtype=torch.float64)).log()
        return log_p[self.held_out].mean().neg().exp().item()

    def batches(self, steps, batch, sequence, seed):
        """`steps` pairs (tokens, next tokens), i64[batch, sequence] each, of
        windows anywhere in the training texts."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            starts = torch.randint(len(self.train) - sequence, (batch, 1),
                                   generator=generator)
            window = self.train[starts + torch.arange(sequence + 1)]
            yield window[:, :-1].contiguous(), window[:, 1:].contiguous()

    def held_out_batches(self, batch, sequence):
        """Each held-out token but the first once, as a target; the rest of
        the last batch has target -1."""
        inputs, targets = self.held_out[:-1], self.held_out[1:]
        size = batch * sequence
        missing = -len(inputs) % size
        inputs = torch.cat((inputs, inputs.new_zeros(missing)))
        targets = torch.cat((targets, targets.new_full((missing,), -1)))
        shape = (-1, batch, sequence)
        return list(zip(inputs.view(shape), targets.view(shape)))
