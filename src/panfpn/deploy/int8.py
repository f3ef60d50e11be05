"""INT8 by NNCF. In: an OpenVINO model, images to calibrate on, a way to score. Out: a model that loses little."""

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from panfpn.data import Dataset
from panfpn.extras import optional
from panfpn.tasks import Image

NUM_IMAGES = 100  # that are calibrated on; more take time and change little
_HEAVY = frozenset({"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"})  # what 8 bits are for
_FEWEST = 8  # where images are so large, or the machine so slow, that more would take longer than
_SECONDS = 120.0  # for all of them, at four times the time of a prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What INT8 costs: points (of 100) before and after, and how it was made."""

    headline: str  # what is scored
    before: float
    after: float
    method: str

    @property
    def drop(self) -> float:
        """Points lost."""
        return self.before - self.after


def calibration_images(dataset: Dataset, count: int = NUM_IMAGES) -> list[Image]:
    """Images spread over a data set."""
    indices = range(0, len(dataset), max(1, len(dataset) // count))
    return [dataset.read(i).image for i in indices][:count]


def quantized(
    model: Any, images: Sequence[Image], score: Callable[[Any], float], *, headline: str, max_drop: float,
    say: Callable[[str], Any],
) -> tuple[Any, Cost]:  # fmt: skip
    """An OpenVINO model with INT8 weights and activations; `score` gives the points of a compiled one.

    If plain quantisation loses more than `max_drop` points, the layers that cost most go back to floating point.

    Raises:
        ValueError: it loses too much all the same.
        ImportError: the extra `int8` is not installed.
    """
    nncf = optional("nncf", "int8", "INT8 needs")
    core = optional("openvino", "export", "INT8 needs").Core()

    def compiled(candidate: Any) -> Any:
        return core.compile_model(candidate, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    plain = compiled(model)
    before = score(plain)
    images = images[:: -(-len(images) // _affordable(plain, images[0]))]
    batches = nncf.Dataset([image[None] for image in images])
    ignored = nncf.IgnoredScope(names=not_between_convolutions(model), validate=False)
    say(f"{headline} is {before:.2f}; quantising with {len(images)} images")
    with _quiet():
        small = nncf.quantize(model, batches, subset_size=len(images), ignored_scope=ignored)
    after, method = score(compiled(small)), "quantised after training"
    if before - after > max_drop:
        say(f"{headline} of INT8 is {after:.2f}, more than {max_drop:g} less; looking for the layers that cost it")

        def validate(candidate: Any, _: Iterable[Any]) -> tuple[float, None]:
            return score(candidate), None

        with _quiet():
            small = nncf.quantize_with_accuracy_control(
                model, batches, batches, validate, max_drop=max_drop, subset_size=len(images), ignored_scope=ignored,
            )  # fmt: skip
        after, method = score(compiled(small)), "quantised with accuracy control"
    cost = Cost(headline=headline, before=before, after=after, method=method)
    if not cost.drop <= max_drop:
        raise ValueError(f"INT8 costs {cost.drop:.2f} points of {headline} ({before:.2f} before, {after:.2f} after), "
                         f"and {max_drop:g} are allowed")  # fmt: skip
    return small, cost


def not_between_convolutions(model: Any) -> list[str]:
    """Names of the operations of an OpenVINO model that stay in floating point.

    Only sums, products and resizes between convolutions stand 8 bits. Those before the first (pixels fitted into a
    scale) and behind the last (logits brought to the image's size), and those of boxes, would be off by a 256th of an
    image.
    """
    operations = model.get_ordered_ops()
    above: set[str] = set()
    below: set[str] = set()
    for operation in operations:
        name = operation.get_friendly_name()
        sources = [value.get_node().get_friendly_name() for value in operation.input_values()]
        if operation.get_type_name() in _HEAVY or above.intersection(sources):
            above.add(name)
    for operation in reversed(operations):
        kind = operation.get_type_name()
        if kind in _HEAVY or operation.get_friendly_name() in below:
            values = operation.input_values()
            values = values[:1] if kind == "ROIAlign" else values  # its other inputs are boxes
            below.update(value.get_node().get_friendly_name() for value in values)
    return [
        name for operation in operations
        if operation.get_type_name() not in _HEAVY
        and not ((name := operation.get_friendly_name()) in above & below and _is_a_map(operation))
        and operation.get_type_name() not in ("Constant", "Parameter", "Result")
    ]  # fmt: skip


def _is_a_map(operation: Any) -> bool:
    """Whether it gives [B, C, h, w]."""
    shape = operation.output(0).get_partial_shape()
    return not shape.rank.is_dynamic and len(shape) == 4


def _affordable(compiled: Any, image: Image) -> int:
    """How many images can be calibrated on in the time that there is for it."""
    for _ in range(2):  # the first run makes the graph ready
        begin = time.monotonic()
        compiled([image[None]])
    return max(_FEWEST, min(NUM_IMAGES, int(_SECONDS / 4 / (time.monotonic() - begin))))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's log and progress bars."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
