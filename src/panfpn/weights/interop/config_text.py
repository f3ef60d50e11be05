"""The configuration text that OpenMMLab's libraries leave in checkpoints. In: the text. Out: plain dictionaries.

It is Python: assignments of literals and `dict(...)` calls. Only those are read; nothing is run.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

_LONGEST = 1 << 20  # characters of configuration that are looked at
_UNREAD = object()


def assignments(text: str) -> dict[str, Any] | None:
    """Top-level names and their values, where those are literals; None if the text is not Python."""
    if len(text) > _LONGEST:
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the parser has all of these
        return None
    values = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = _value(node.value)
    return _read(values)


def part(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping at a path of keys; empty where there is none."""
    for key in keys:
        config = config.get(key, {})
        if not isinstance(config, Mapping):
            return {}
    return config


def is_numbers(value: Any) -> TypeGuard[Sequence[float]]:
    """Whether this is a list of at least one number."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(v, int | float) for v in value)


def tested_datasets(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """What is tested on, as 0.x and 1.x describe it."""
    return part(config, "data", "test"), part(config, "test_dataloader", "dataset")


def pipeline_steps(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every step of the test pipeline, nested ones too (`MultiScaleFlipAug`)."""
    pipelines = (*(dataset.get("pipeline") for dataset in tested_datasets(config)), config.get("test_pipeline"))
    waiting = list(next((p for p in pipelines if isinstance(p, list | tuple)), ()))
    while waiting:
        step = waiting.pop(0)
        if isinstance(step, Mapping):
            yield step
            nested = step.get("transforms")
            waiting += nested if isinstance(nested, list | tuple) else []


def differences(model: Mapping[str, Any], wanted: Mapping[str, Mapping[str, tuple[Any, ...]]]) -> Iterator[str]:
    """Where the described network is not as it is `wanted`: by section and key, the possible values, ours first."""
    for section, settings in wanted.items():
        described = part(model, *section.split("."))
        for key, possible in settings.items():
            value = described.get(key, possible[0])
            value = tuple(value) if isinstance(value, list) else value
            if value not in possible:
                yield f"{section}.{key} is {value!r} there and {possible[0]!r} here"


def _read(values: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in values.items() if value is not _UNREAD}


def _value(node: ast.expr) -> Any:
    """The value of a literal or `dict(...)`, without the entries that are neither; `_UNREAD` for anything else."""
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args):
            return _UNREAD
        return _read({k.arg: _value(k.value) for k in node.keywords if k.arg})
    if isinstance(node, ast.Dict):
        keys = [_value(key) if key else _UNREAD for key in node.keys]
        return _read({k: _value(v) for k, v in zip(keys, node.values, strict=True) if isinstance(k, str | int)})
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(entry) for entry in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return _UNREAD
