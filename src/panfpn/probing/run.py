"""The probe. In: settings and a folder. Out: a row for each backbone, as table, JSON and page.

All candidates see the same images in the same order, as many steps as fit into the time for all of them together. What
is measured is written down at once, and a training resumes exactly: a probe that was killed and started again ends in
the same table.
"""

import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from panfpn.benchmark import InferenceJob, in_child, measure_inference, measure_training
from panfpn.build import build_dataset, load_task
from panfpn.config import ProbeSettings, TrainConfig
from panfpn.engine import evaluate, train
from panfpn.engine.features import FOLDER as FEATURES
from panfpn.files import write_json
from panfpn.metrics import SemanticScores
from panfpn.metrics.bootstrap import miou_interval
from panfpn.models.timm_networks import plan_network
from panfpn.models.timm_weights import pretrained_weights
from panfpn.parsing import plain
from panfpn.probing.candidates import base_config, candidate_config, expand
from panfpn.report.probe import write_page

FILE, PAGE = "probe.json", "probe.html"
_WARMUP, _REPEATS = 2, 5
_TRAINED_SHARE = 0.9  # of the time: the rest is starting, scoring and writing
_FEWEST = 20  # steps
_CACHE_GB = 64.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """A backbone, as far as it has come; numbers are None until they are known, and `problem` ends it."""

    name: str
    weights: str = ""
    licence: str = ""
    latency_ms: float | None = None  # median, image in memory -> labels
    memory_mb: float | None = None  # peak of that, above the loaded program
    params_m: float | None = None  # of the whole network, in millions
    gflops: float | None = None  # two for a multiply-add
    step_s: float | None = None
    miou: float | None = None  # and its 95 % interval
    low: float | None = None
    high: float | None = None
    minutes: float | None = None
    problem: str = ""
    final: bool = False  # whether the problem is one of the backbone's own


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a probe found; the best comes first, then what is not scored."""

    dir: Path
    steps: int
    rows: tuple[Row, ...]

    @property
    def pareto(self) -> frozenset[str]:
        """Names of those than which no other is both better and as quick, or as good and quicker."""
        scored = [row for row in self.rows if row.miou is not None and row.latency_ms is not None]
        return frozenset(row.name for row in scored if not any(_beats(other, row) for other in scored))


def _beats(one: Row, other: Row) -> bool:
    assert one.miou is not None and other.miou is not None and one.latency_ms and other.latency_ms
    no_worse = one.miou >= other.miou and one.latency_ms <= other.latency_ms
    return no_worse and (one.miou, -one.latency_ms) != (other.miou, -other.latency_ms)


def probe(
    data: str | Path | None = None, *, out: str | Path = "probe", settings: ProbeSettings | None = None,
    say: Callable[[str], Any] | None = None, **changes: Any,
) -> Probe:  # fmt: skip
    """Train each backbone by one recipe on the data set in folder `data`, and compare them.

    `changes` are of `settings` (`panfpn.config.ProbeSettings`): `backbones=("resnet50", "vit_*dinov3")`, `minutes=30`,
    `frozen=True`, … An `out` that holds this probe is gone on with. `say` gets a sentence now and then (None: to
    stderr).

    Raises:
        ValueError: data, settings or a folder that cannot be used. A backbone that fails has its reason in its row.
    """
    settings = replace(settings or ProbeSettings(), **changes)
    root = None if data is None else Path(data)
    told = say or (lambda text: sys.stderr.write(f"{text}\n"))
    folder = Path(out).expanduser()
    base, size, num_classes = base_config(root, settings)
    saved = plain({"data": root, **asdict(settings)})
    state = _State.opened(folder, saved, expand(settings.backbones))
    for name in state.names:
        if state.rows[name].latency_ms is None and not state.rows[name].problem:
            told(f"measuring {name}")
            state.put(_measured(name, base, settings, size, num_classes, folder))
    running = [name for name in state.names if not state.rows[name].problem]
    if not state.steps:
        state.steps = settings.steps or _affordable([state.rows[name] for name in running], settings)
        state.write()
    steps = f"{state.steps} steps of {settings.batch_size} images"
    told(f"{len(running)} of {len(state.names)} backbones are trained, each for {steps}")
    for number, name in enumerate(running, 1):
        if state.rows[name].miou is None:
            told(f"training {name} ({number} of {len(running)})")
            state.put(_trained(state.rows[name], base, settings, state.steps, folder))
    found = Probe(dir=folder, steps=state.steps, rows=tuple(sorted(state.rows.values(), key=_rank)))
    write_page(folder / PAGE, _page(found, str(root or settings.dataset), settings, size))
    return found


def _rank(row: Row) -> tuple[bool, float, str]:
    return row.miou is None, -(row.miou or 0), row.name


class _State:
    """What is written down between two backbones."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], names: Sequence[str]) -> None:
        self.folder, self.settings, self.names = folder, settings, list(names)
        self.rows = {name: Row(name=name, licence=pretrained_weights(name)[1]) for name in names}
        self.steps = 0

    @classmethod
    def opened(cls, folder: Path, settings: Mapping[str, Any], names: Sequence[str]) -> "_State":
        """That of an earlier call, or a new one; ValueError for a folder that holds something else."""
        state = cls(folder, settings, names)
        file = folder / FILE
        if not file.is_file():
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise ValueError(f"{folder}: is there, and holds no probe; choose another folder for it")
            folder.mkdir(parents=True, exist_ok=True)
            state.write()
            return state
        try:
            found = json.loads(file.read_text())
            rows = {entry["name"]: Row(**entry) for entry in found["rows"]}
            steps, before = int(found["steps"]), dict(found["settings"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}: is damaged ({error}); choose another folder") from error
        changed = [key for key, value in state.settings.items() if before.get(key) != value]
        if changed or list(rows) != list(names):
            what = ", ".join(changed) or "what timm has under these patterns"
            raise ValueError(f"{folder}: holds a probe with other settings ({what}); choose another folder, or give "
                             "the same ones to go on with it")  # fmt: skip
        again = {name: replace(row, problem="") for name, row in rows.items() if row.problem and not row.final}
        state.rows, state.steps = rows | again, steps  # what failed may have been the disk, or the network
        return state

    def put(self, row: Row) -> None:
        self.rows[row.name] = row
        self.write()

    def write(self) -> None:
        rows = [asdict(row) for row in self.rows.values()]
        write_json(self.folder / FILE, {"settings": self.settings, "steps": self.steps, "rows": rows})


def _measured(
    name: str, base: TrainConfig, settings: ProbeSettings, size: tuple[int, int], num_classes: int, folder: Path
) -> Row:
    """A row with what needs no training, each in a process of its own; a network that fails says why."""
    row = Row(name=name, licence=pretrained_weights(name)[1])
    try:
        config, weights = candidate_config(base, name, settings)
        row = replace(row, weights=weights)
        file = folder / f"{name}.yaml"
        file.write_text(config.to_yaml())
        job = InferenceJob(
            model=str(file), size=size, num_classes=num_classes, device=settings.device, repeats=_REPEATS,
            warmup=_WARMUP,
        )  # fmt: skip
        figures = in_child(measure_inference, job, False)
        row = replace(
            row, latency_ms=1000 * figures.percentile(50), memory_mb=figures.memory / 1e6, gflops=figures.flops / 1e9,
            params_m=figures.parameters / 1e6,
        )  # fmt: skip
        if settings.budget_ms is not None and row.latency_ms is not None and row.latency_ms > settings.budget_ms:
            return replace(row, final=True,
                           problem=f"takes more than the {settings.budget_ms:g} ms that are allowed")  # fmt: skip
        step = in_child(measure_training, config, _REPEATS, _WARMUP, num_classes)
        return replace(row, step_s=1 / step.steps_per_second)
    except Exception as error:  # one network must not cost the others
        return replace(row, problem=_sentence(error))


def _affordable(rows: Sequence[Row], settings: ProbeSettings) -> int:
    """Steps for each, so that all take the time that they were given."""
    seconds = sum(row.step_s or math.nan for row in rows)
    return max(_FEWEST, int(60 * settings.minutes * _TRAINED_SHARE / seconds)) if rows else 0


def _trained(row: Row, base: TrainConfig, settings: ProbeSettings, steps: int, folder: Path) -> Row:
    """The row with its score."""
    place = folder / row.name
    cache = _CACHE_GB if settings.frozen else 0.0
    if settings.frozen and _cache_gb(row, base) > min(_CACHE_GB, 0.8 * shutil.disk_usage(folder).free / 1e9):
        cache = 0.0  # computed anew in every step: slower, with the same result but for 16 bits
    try:
        config = candidate_config(base, row.name, settings)[0].changed(
            train__steps=steps, run__dir=place, run__name=row.name, run__val_every=steps,
            run__checkpoint_every=max(1, steps // 10), optim__warmup_steps=steps // 20,
            train__cache_gb=cache,
        )  # fmt: skip
        value, low, high, minutes = in_child(_train_and_score, config)
    except Exception as error:
        shutil.rmtree(place / FEATURES, ignore_errors=True)
        return replace(row, problem=_sentence(error))
    return replace(row, miou=value, low=low, high=high, minutes=minutes)


def _cache_gb(row: Row, base: TrainConfig) -> float:
    """What the features of all forms take on the disk."""
    plan, crop = plan_network(row.name), base.data.crop
    assert crop is not None and base.data.variants
    numbers = sum(c * (crop[0] // s) * (crop[1] // s) for c, s in zip(plan.channels, plan.strides, strict=True))
    images = len(build_dataset(base.data, base.data.train_split))
    return 2e-9 * base.data.variants * images * (numbers + crop[0] * crop[1])


def _train_and_score(config: TrainConfig) -> tuple[float, float, float, float]:
    """MIoU and its interval, and the minutes of training; in a process of its own, as memory is left behind."""
    assert config.run.dir is not None
    begun = (config.run.dir / "config.yaml").is_file()
    result = train(resume=config.run.dir) if begun else train(config)
    if result.interrupted:
        raise KeyboardInterrupt("the probe was interrupted; give the same command to go on")
    task, _ = load_task(result.dir, device=config.run.device, precision=config.train.precision)
    scores = evaluate(task, config.data)
    assert isinstance(scores, SemanticScores) and scores.images is not None
    interval = miou_interval(scores.images)
    return interval.value, interval.low, interval.high, result.minutes


def _sentence(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, ValueError | OSError | ImportError) else f"{type(error).__name__}: {first}"


def _page(found: Probe, title: str, settings: ProbeSettings, size: tuple[int, int]) -> dict[str, Any]:
    """What the page shows."""
    return {
        "title": title, "steps": found.steps, "batch": settings.batch_size,
        "frozen": settings.frozen, "size": size, "pareto": found.pareto,
        "rows": [{f.name: getattr(row, f.name) for f in fields(row)} for row in found.rows],
    }  # fmt: skip
