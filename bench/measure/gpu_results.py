"""What `bench gpu` has found out so far, as figures and as tables."""

import dataclasses
import os

from measure.figures import Figures, print_table, quartiles, spread
from measure.gpu_models import Shape

NAMES = {"shardplane": "Shardplane", "one_by_one": "one by one",
         "eager": "eager", "eager_graphs": "eager + graph",
         "compile": "torch.compile"}
BASES = ("shardplane", "one_by_one")
GIB = 1 << 30


@dataclasses.dataclass
class ModelResults:
    """Of one model, each by side; `rounds`: side -> round -> (steps, Ran)."""

    name: str
    shape: Shape
    first: dict = dataclasses.field(default_factory=dict)
    losses: dict = dataclasses.field(default_factory=dict)
    peak: dict = dataclasses.field(default_factory=dict)
    predicted: dict = dataclasses.field(default_factory=dict)
    taken: dict = dataclasses.field(default_factory=dict)
    rounds: dict = dataclasses.field(default_factory=dict)
    kernels: dict = dataclasses.field(default_factory=dict)  # kernel_times
    failures: dict = dataclasses.field(default_factory=dict)

    def seconds(self, side):
        """Of a step, one a round."""
        return [ran.seconds / steps
                for steps, ran in self.rounds.get(side, {}).values()]

    def shares(self, side, field):
        """One a round, of those that know it."""
        values = (getattr(ran, field)
                  for _, ran in self.rounds.get(side, {}).values())
        return [value for value in values if value is not None]

    def ratios(self, side, base):
        """A side's time over another's, one a round that both have."""
        own, other = self.rounds.get(side, {}), self.rounds.get(base, {})
        return [own[i][1].seconds / own[i][0]
                / (other[i][1].seconds / other[i][0])
                for i in own if i in other]


# Figure -> (unit, what ModelResults knows of it by side).
_ONCE = {"first_step_seconds": ("s", "first"),
         "peak_tensor_bytes": ("B", "peak"),
         "predicted_peak_bytes": ("B", "predicted"),
         "device_memory_taken_bytes": ("B", "taken")}


def add_figures(figures, model):
    """All that is known of a model."""
    for figure, (unit, field) in _ONCE.items():
        for side, value in getattr(model, field).items():
            figures.add(figure, unit, [value], model=model.name, side=side)
    for side in model.rounds:
        of = {"model": model.name, "side": side}
        seconds = model.seconds(side)
        figures.add("step_seconds", "s", seconds, **of)
        figures.add("tokens_per_second", "1/s",
                    [model.shape.tokens / s for s in seconds], **of)
        figures.add("flops_per_second", "1/s",
                    [model.shape.step_flops / s for s in seconds], **of)
        for figure in ("host_share", "worker_share"):
            if shares := model.shares(side, figure):
                figures.add(figure, "1", shares, **of)
        for base in BASES:
            ratios = model.ratios(side, base)
            if side not in BASES and ratios:
                figures.add("ratio", "1", ratios, **of, over=base)
    for side, losses in model.losses.items():
        figures.add_words("losses", model=model.name, side=side,
                          values=losses)
    for side, kernels in model.kernels.items():
        figures.add_words("kernels", model=model.name, side=side, unit="s",
                          values=kernels)
    for side, message in model.failures.items():
        figures.add_words("failure", model=model.name, side=side,
                          message=message)


class GpuFigures(Figures):
    """Figures, and what is none."""

    def add_words(self, figure, **words):
        self.all.append({"bench": self._bench, "figure": figure, **words})


class Results:
    """Of all models; `save` writes what there is, as often as one likes.
    `setting`: what all of it was measured on."""

    def __init__(self, path, setting):
        self._path = path
        self._setting = setting
        self.models = []

    def add(self, name, shape):
        self.models.append(ModelResults(name, shape))
        return self.models[-1]

    def failed(self):
        return any(model.failures for model in self.models)

    def save(self):
        if not self._path:
            return
        figures = GpuFigures("gpu")
        figures.add_words("setting", **self._setting)
        for model in self.models:
            add_figures(figures, model)
        os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
        part = f"{self._path}.part"  # whoever reads meanwhile reads all
        figures.write(part)
        os.replace(part, self._path)


def _cell(values, scale=1.0, digits=1):
    return spread(quartiles(values), scale, digits) if values else "-"


def _gib(value):
    return "-" if value is None else f"{value / GIB:.2f}"


def _row(model, side):
    seconds = model.seconds(side)
    own = "shardplane" if side == "one_by_one" else side  # one process
    return [NAMES[side], _cell(seconds, 1e3, 2),
            _cell([model.shape.tokens / s for s in seconds], 1, 0),
            *("-" if side in BASES else _cell(model.ratios(side, base), 1, 2)
              for base in BASES),
            _cell(model.shares(side, "host_share"), 100, 1),
            _cell([model.shape.step_flops / s for s in seconds], 1e-12, 1),
            _gib(model.peak.get(own)), _gib(model.taken.get(own))]


def print_model(model):
    """Its table."""
    print(f"\n{model.name}: {model.shape.title}; batch {model.shape.batch} x "
          f"{model.shape.length}; median (quartiles) of the rounds",
          flush=True)
    print_table([
        ["side", "ms a step", "tokens/s", "over Shardplane",
         "over one by one", "host %", "TFLOP/s", "tensors GiB", "taken GiB"],
        *(_row(model, side) for side in NAMES if side in model.rounds)])
