"""The language model demo's parts, without a cluster."""

import collections
import math
import random
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shardplane import demo
from shardplane.demos import chart, lm, lm_model, lm_training
from shardplane.demos.lm_text import (HELD_OUT, TRAINING, Corpus, read,
                                      shared_runs)
from shardplane.demos.lm_tokenizer import Tokenizer
from shardplane.demos.progress import Progress, duration

THE = [(116, 104), (256, 101)]  # "t" "h", then "th" "e"
SIZES = lm_model.Sizes(vocabulary=37, sequence=12, layers=2, dim=24, heads=6,
                       kv_heads=2, hidden=40)


# ------------------------------------------------------------- tokenizer

@pytest.mark.parametrize("text, tokens", [
    ("the", [257]), ("tho", [256, 111]), ("", []), (" the", [32, 257]),
    ("tthe", [116, 257]), ("t he", [116, 32, 104, 101])])
def test_tokenizer_encodes(text, tokens):
    assert Tokenizer(THE).encode(text) == tokens


def test_tokenizer_joins_the_most_frequent_first():
    # " a" and "ab" stand three times each: the smaller first token decides.
    assert Tokenizer.train("ab ab ab ac", 258).encode("ab ab ac") == [
        97, 98, 257, 256, 99]


def naive_merges(text, count):
    """Counts everything anew for each merge."""
    words = collections.Counter(text.split(" "))
    words = {tuple(word.encode()): times for word, times in words.items()}
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        best = max(pairs, key=lambda p: (pairs[p], -p[0], -p[1]))
        joined = collections.Counter()
        for word, times in words.items():
            out, i = [], 0
            while i < len(word):
                both = word[i:i + 2] == best
                out.append(256 + len(merges) if both else word[i])
                i += 2 if both else 1
            joined[tuple(out)] += times
        merges.append(best)
        words = joined
    return merges


def test_tokenizer_learns_what_counting_anew_would():
    rng = random.Random(0)
    words = ["".join(rng.choices("aab", k=rng.randint(2, 8)))
             for _ in range(60)]
    # Words of letters alone, a line each: no pieces but words and "\n".
    learnt = Tokenizer.train("\n".join(words), 256 + 20)
    expected = Tokenizer(naive_merges(" ".join(words), 20))
    assert learnt.vocabulary == expected.vocabulary == 276
    for word in words:
        assert learnt.encode(word) == expected.encode(word)


@pytest.mark.parametrize("text", [
    "the other\n\n  \tthen", "naïve – ñ", "1,000.50 (a)", " ", "\x00\r\n"])
def test_tokenizer_round_trip(text):
    tokenizer = Tokenizer.train("the other then " * 9, 270)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokenizer_of_little_text_is_smaller():
    assert Tokenizer.train("ab", 1000).vocabulary == 257
    with pytest.raises(ValueError, match="at least 256, got: 255"):
        Tokenizer.train("ab", 255)


# ------------------------------------------------------------------ text

def test_text_is_a_paragraph_a_line(tmp_path):
    (tmp_path / "one").write_text("  A\n   b  c\n\n\n\nd\n")
    (tmp_path / "two").write_text("\n\ne\n")
    assert read(["one", "two"], tmp_path) == "A b c\nd\ne\n"
    with pytest.raises(FileNotFoundError, match="licence three .*base-files"):
        read(["three"], tmp_path)


@pytest.mark.parametrize("text, other, expected", [
    ("a b c", "x a B, c", 1.0), ("a b c d", "a b c", 0.5),
    ("a b c", "a b", 0.0), ("", "a", 0.0)])
def test_shared_runs(text, other, expected):
    assert shared_runs(text, other, run=3) == expected


def test_held_out_text_is_unseen():
    def family(name):
        return name.partition("-")[0]
    assert not set(map(family, TRAINING)) & set(map(family, HELD_OUT))
    assert shared_runs(read(HELD_OUT), read(TRAINING)) < 0.03


def corpus(train, held_out):
    return Corpus(Tokenizer([]), torch.tensor(train), torch.tensor(held_out),
                  held_out_bytes=len(held_out), shared=0.0)


def test_batches_are_windows_and_what_comes_next():
    numbers = corpus(list(range(50)), [0, 1])
    first = list(numbers.batches(4, batch=3, sequence=5, seed=7))
    assert len(first) == 4
    for x, y in first:
        assert x.shape == y.shape == (3, 5)
        assert torch.equal(x + 1, y)
        assert torch.equal(x - x[:, :1], torch.arange(5).expand(3, 5))
    again = list(numbers.batches(4, batch=3, sequence=5, seed=7))
    assert all(torch.equal(a, b) for a, b in zip(
        (x for x, _ in first), (x for x, _ in again)))


def test_each_held_out_token_is_a_target_once():
    batches = corpus([0], list(range(10, 30))).held_out_batches(2, 4)
    assert [x.shape for x, _ in batches] == [(2, 4)] * 3
    targets = torch.cat([y.flatten() for _, y in batches]).tolist()
    assert targets == [*range(11, 30), *[-1] * 5]
    inputs = torch.cat([x.flatten() for x, _ in batches]).tolist()
    assert inputs[:19] == list(range(10, 29))


def test_unigram_perplexity():
    # Of 3 + 256 (one more for each token), 0 has 3 and 1 has 2, 9 has 1.
    expected = math.prod(259 / n for n in (3, 2, 1)) ** (1 / 3)
    assert corpus([0, 1, 0], [0, 1, 9]).unigram_perplexity() == (
        pytest.approx(expected))


# ----------------------------------------------------------------- model

def test_rotary_scores_depend_on_the_distance_alone():
    cos, sin = lm_model.rotary_tables(9, 8)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 9, 1, 8)
    turned = [lm_model.rotate(x, cos, sin)[0, :, 0] for x in (q, k)]
    scores = turned[0] @ turned[1].T
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    torch.testing.assert_close(scores[0, 0], (q[0, 0] * k[0, 0]).sum())


def test_decoder_does_not_look_ahead():
    torch.manual_seed(0)
    module = lm_model.Decoder(SIZES)
    tokens = torch.randint(37, (2, 12))
    changed = tokens.clone()
    changed[:, 7:] += 1
    changed %= 37
    with torch.no_grad():
        one, other = module(tokens), module(changed)
        torch.testing.assert_close(one[:, :7], other[:, :7])
        assert not torch.isclose(one[:, 7:], other[:, 7:]).all(-1).any()
        torch.testing.assert_close(module(tokens[:, :5]), one[:, :5])


def test_decoder_groups_its_queries():
    """As many kv heads as heads, each one repeated: the same model."""
    torch.manual_seed(0)
    grouped = lm_model.Attention(SIZES)
    whole = lm_model.Attention(lm_model.dataclasses.replace(SIZES,
                                                            kv_heads=6))
    state = grouped.state_dict()
    for name in ("wk.weight", "wv.weight"):
        state[name] = state[name].view(2, 4, 24).repeat_interleave(
            3, 0).flatten(0, 1)
    whole.load_state_dict(state)
    x = torch.randn(2, 12, 24)
    tables = lm_model.rotary_tables(12, 4)
    torch.testing.assert_close(grouped(x, *tables), whole(x, *tables))


def test_parameter_groups_are_all_parameters_once():
    module = lm_model.Decoder(SIZES)
    decayed, plain = lm_model.parameter_groups(module, 0.1)
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0
    norms = {id(m.weight) for m in module.modules()
             if isinstance(m, nn.RMSNorm)}
    assert {id(p) for p in plain["params"]} == norms and len(norms) == 5
    assert sorted(map(id, decayed["params"] + plain["params"])) == sorted(
        map(id, module.parameters()))


# -------------------------------------------------------------- training

def test_learning_rate():
    rates = [lm_training.learning_rate(i, 120, 2.0) for i in range(121)]
    assert rates[0] == pytest.approx(0.1)      # a twentieth
    assert rates[19] == rates[20] == 2.0
    assert rates[70] == pytest.approx(1.1)     # half way down
    assert rates[120] == pytest.approx(0.2)


def test_a_loss_that_is_not_finite_ends_the_training():
    module = lm_model.Decoder(SIZES)
    tokens = torch.zeros(1, 12, dtype=torch.int64)
    lost = []
    progress = types.SimpleNamespace(show=lambda *seen: lost.append(seen))
    with torch.no_grad():
        module.output.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1: .* got: nan"):
        lm_training.train_plain(module, [(tokens, tokens)], 0.1, progress)
    assert not lost


def test_perplexity_leaves_out_what_is_no_target():
    x = torch.zeros(1, 4, dtype=torch.int64)
    y = torch.tensor([[0, 1, -1, -1]])
    logits = torch.tensor([3.0, 1.0]).log().expand(1, 4, 2)
    assert lm_training.perplexity(lambda _: logits, [(x, y)]) == (
        pytest.approx(math.sqrt(4 / 3 * 4)))


def test_generate_keeps_to_its_window():
    calls = []

    def next_number(tokens):
        calls.append(tokens.tolist())
        return 1e3 * F.one_hot((tokens + 1) % 50, 50)

    tokens = lm_training.generate(next_number, [3, 4], 4, window=4, seed=0)
    assert tokens == [3, 4, 5, 6, 7, 8]
    assert calls == [[[3, 4, 0, 0]], [[3, 4, 5, 0]], [[3, 4, 5, 6]],
                     [[4, 5, 6, 7]]]


def test_generate_repeats_with_its_seed():
    def any_token(tokens):
        return torch.zeros(*tokens.shape, 50)

    one, same, other = (
        lm_training.generate(any_token, [1], 20, window=8, seed=seed)
        for seed in (1, 1, 2))
    assert one == same != other


# ------------------------------------------------------ what is to be seen

def test_columns_are_means_of_neighbours():
    assert chart.columns([1, 3, 5, 7], 2) == [2, 6]
    assert chart.columns([1, 3, 5], 2) == [1, 4]
    assert chart.columns([1, 3], 8) == [1, 3]


def test_text_chart():
    assert chart.text_chart(
        {"one": [8, 6, 4, 2, 2], "other": [8, 6, 4, 2, 4]}, height=4) == (
            "   8.000 |#\n"
            "         | #\n"
            "         |  # o\n"
            "   2.000 |   #*\n"
            "         +-----\n"
            "          1   5\n"
            "          * one   o other   # both")


def test_text_chart_of_a_flat_curve():
    assert chart.text_chart({"flat": [1.5]}, height=2).splitlines() == [
        "   1.500 |*", "   1.500 |", "         +-", "          1 1",
        "          * flat"]
    with pytest.raises(ValueError, match="at most 2, got: 3"):
        chart.text_chart(dict.fromkeys("abc", [1.0]))


def test_picture_is_a_png(tmp_path):
    from PIL import Image
    path = tmp_path / "curves.png"
    chart.save_picture(path, {"one": [3, 2, 1], "other": [3, 2, 1]}, "title")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (960, 540)
        image.load()
        assert sum(map(bool, image.convert("L").histogram())) > 10


def test_progress_line():
    progress = Progress("run", 40, tokens=100)
    assert progress.line(10, 1.5, now=progress.started + 5) == (
        "run        [###.........]   10/40  loss 1.5000     200 tokens/s  "
        "0:15 left")
    progress = Progress("run", 40)
    assert progress.line(20, 1.5, now=progress.started + 5) == (
        f"run        [{'#' * 15}{'.' * 15}]   20/40  loss 1.5000     4.0 "
        "steps/s")
    assert [duration(s) for s in (0.2, 59.6, 125)] == ["0:00", "1:00", "2:05"]


def test_progress_line_fits_into_a_terminal():
    progress = Progress("Shardplane", 9999, tokens=10 ** 4)
    line = progress.line(1, 12.3456, now=progress.started + 0.2)
    assert len(line) <= 79, line


@pytest.mark.parametrize("arguments, message", [
    (["--dim", "100"], "--dim: expected a multiple of 16"),
    (["--kv-heads", "3"], "--heads: expected a multiple of --kv-heads 3"),
    (["--steps", "0"], "--steps: expected at least 1, got: 0"),
    (["--vocabulary", "255"], "--vocabulary: expected at least 256"),
    (["--picture", "/no/such/folder/x.png"], "No such file")])
def test_refused_before_anything_starts(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        lm.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_demo_of_no_such_name(capsys):
    assert demo.main(["letters"]) == 2
    assert "expected lm or digits, got: letters" in capsys.readouterr().err


@pytest.mark.parametrize("name", demo.DEMOS)
def test_help_of_each_demo(name, capsys):
    with pytest.raises(SystemExit) as ended:
        demo.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: shardplane demo {name}" in capsys.readouterr().out
