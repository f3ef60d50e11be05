"""A model's file in another form: a release file out of another library's checkpoint, or such a checkpoint of ours."""

from pathlib import Path

from panfpn.choices import WRITERS, lookup
from panfpn.labels import LabelTable
from panfpn.weights.header import is_release
from panfpn.weights.release import load, write_release
from panfpn.weights.zoo import model_file


def convert_model(
    name: str | Path, out: Path | None = None, *, labels: str | None = None, ema: bool = False,
    scale: tuple[int, int] | None = None,
) -> tuple[Path, tuple[str, ...]]:  # fmt: skip
    """Another library's checkpoint -> release file; a release file -> the checkpoint that `choices.WRITERS` names.

    Returns the file written (never over another one), and what was left out or assumed.

    Raises:
        ValueError: a file that exists already, a label table that does not fit, or what `load` raises.
    """
    file = model_file(name)
    suffix = ".pth" if is_release(file) else ".safetensors"
    out = out or Path(file.with_suffix(suffix).name)
    if out.suffix != suffix:
        raise ValueError(f"{out}: is to be written as {suffix}; name the file so")
    if out.exists():
        raise ValueError(f"{out}: exists already; name another file with --out")
    table = None
    if labels is not None:
        is_yaml = labels.endswith((".yaml", ".yml"))
        table = LabelTable.from_yaml(Path(labels)) if is_yaml else LabelTable.named(labels)
    release = load(name, labels=table, ema=ema, scale=scale).with_weights()
    if suffix == ".safetensors":
        write_release(
            out, release.tensors, release.config, release.table, scores={}, source=release.source, named_data=False
        )
        return out, release.notes
    write = lookup(WRITERS, release.config.model.architecture, "model.architecture")
    return out, write(out, release.tensors, release.config, release.table)
