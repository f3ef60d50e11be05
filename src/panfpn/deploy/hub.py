"""A model on the Hugging Face Hub. In: a model and OWNER/REPO. Out: model.safetensors, config.json, a card, a picture.

Nothing else is uploaded, and what others put beside it stays.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panfpn import __version__
from panfpn.choices import ARCHITECTURES
from panfpn.deploy.predictor import Predictor
from panfpn.draw import as_rgb, side_by_side
from panfpn.files import encoded, first_line, sha256
from panfpn.weights import Release, load, write_release
from panfpn.weights.header import is_release, read_header
from panfpn.weights.hub import FILE

MARK = "<!-- written by panfpn push: a card without this line is left alone -->"
_PICTURE = "example.jpg"
_METRICS = {"miou": "mIoU", "aacc": "pixel accuracy", "pq": "PQ", "sq": "SQ", "rq": "RQ", "mask_ap": "mask AP"}
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def push(
    model: str | Path, repository: str, *, example: Path | None = None, license: str | None = None,
    private: bool = False, revision: str | None = None, message: str | None = None,
) -> str:  # fmt: skip
    """Upload a model to `repository` (made if it is not there) in one commit; returns the commit's address.

    `example` is a photo that the card shows labelled; `license` an identifier of the Hub (apache-2.0, mit, …), where
    the model does not say its own. `revision` is a branch. huggingface_hub finds the token (`hf auth login`, HF_TOKEN).

    Raises:
        ValueError: a model that cannot be read or is an exported graph, a name that is none, or what the Hub refuses.
    """
    import huggingface_hub as hub  # noqa: PLC0415 - only who pushes pays for it

    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"{repository!r} is no repository; name it OWNER/REPO")
    release = load(model).with_weights()
    with tempfile.TemporaryDirectory() as folder:
        file = release.file
        if not is_release(file):  # another library's
            file = Path(folder) / FILE
            write_release(file, release.tensors, release.config, release.table, scores=release.scores,
                          source=release.source, named_data=False)  # fmt: skip
        picture = _picture(file, example) if example else None
        digest, header = sha256(file), read_header(file, role="release")
        config = {"library_name": "panfpn", "panfpn": __version__, "file": FILE, "sha256": digest, **header}
        files: dict[str, Any] = {
            FILE: file, "config.json": (json.dumps(config, indent=1, sort_keys=True) + "\n").encode()
        }  # fmt: skip
        if picture is not None:
            files[_PICTURE] = picture
        api = hub.HfApi()
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            if _card_is_ours(api, repository, revision):
                files["README.md"] = card(release, repository, digest, license=license, picture=bool(picture)).encode()
            done = api.create_commit(
                repository, [hub.CommitOperationAdd(name, content) for name, content in files.items()],
                commit_message=message or f"panfpn {__version__}: {release.file.name}", revision=revision,
            )  # fmt: skip
        except Exception as error:  # the hub's own classes, and the network's
            raise ValueError(f"{repository}: could not be written to the Hub ({first_line(error)})") from error
    return str(done.commit_url)


def _card_is_ours(api: Any, repository: str, revision: str | None) -> bool:
    """Whether the card there, if there is one, was written here."""
    if not api.file_exists(repository, "README.md", revision=revision):
        return True
    return MARK in Path(api.hf_hub_download(repository, "README.md", revision=revision)).read_text(encoding="utf-8")


def _picture(file: Path, example: Path) -> bytes:
    found = Predictor.from_file(file)(example)
    assert found.image is not None
    return encoded(side_by_side(as_rgb(found.image), found.overlay()), ".jpg", example)


def card(release: Release, repository: str, digest: str, *, license: str | None = None, picture: bool = False) -> str:
    """The model card: what the Hub reads (YAML), and what people do."""
    import huggingface_hub as hub  # noqa: PLC0415 - only who pushes pays for it

    config, table, source = release.config, release.table, release.source
    architecture, backbone = config.model.architecture, config.model.backbone
    assert architecture in ARCHITECTURES
    about = release.data or {}
    dataset = str(about.get("dataset") or table.name)
    name = repository.partition("/")[2]
    scores = {key: release.scores[key] for key in _METRICS if isinstance(release.scores.get(key), int | float)}
    learnt = about.get("split") is None and about.get("train_split", "") == about.get("val_split")
    data = hub.ModelCardData(
        library_name="panfpn", license=license or source.get("license"), pipeline_tag="image-segmentation",
        tags=["panfpn", architecture, "semantic-segmentation" if architecture == "SemanticFPN" else
              "panoptic-segmentation", "feature-pyramid-network"],
        model_name=name, eval_results=[
            hub.EvalResult(task_type="image-segmentation", dataset_type=dataset, dataset_name=dataset,
                           dataset_split=str(about.get("val_split") or "val"), metric_type=key,
                           metric_name=_METRICS[key], metric_value=round(100 * value, 2))
            for key, value in scores.items()
        ] if scores and not learnt else None,
    )  # fmt: skip
    things = {c.name for c in table.classes if c.thing}
    parts = [
        f"---\n{data.to_yaml()}\n---\n{MARK}\n",
        f"# {name}\n\n{architecture} on `{backbone}`, {table.num_classes} classes ({table.name}).\n",
        f"![a photo, and what the model makes of it]({_PICTURE})\n" if picture else "",
        "```\npip install panfpn\npanfpn predict photo.jpg --out results --model " + repository + "\n```\n\n"
        f'```python\nimport panfpn\n\nfound = panfpn.Predictor.from_file("{repository}")("photo.jpg")\n```\n',
        _section(f"Scores{' of the images that it learnt from' if learnt else ''}",
                 {_METRICS[key]: f"{100 * value:.2f}" for key, value in scores.items()}),
        _section("Classes", {c.name: ("thing, " if c.name in things else "") + f"value {c.values[0]}"
                             for c in table.classes}),
        f"Started from {source['starts_from']}, whose licence is {source['starts_from_license']}; what it says of "
        "derived weights holds for these.\n" if source.get("starts_from") else "",
        _section("Lineage", {**{key: f"`{value}`" for key, value in source.items()}, "SHA-256": f"`{digest}`"}),
    ]  # fmt: skip
    return "\n".join(part for part in parts if part)


def _section(title: str, rows: Mapping[str, str]) -> str:
    lines = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    return f"## {title}\n\n| | |\n|---|---|\n{lines}" if rows else ""
