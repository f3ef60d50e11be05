"""From a model's name to its file. In: a path, a known name, a repository on the Hugging Face Hub. Out: a local file.

The address of the published models is reported gone, so it comes last, after folders (PANFPN_WEIGHTS),
earlier downloads (PANFPN_CACHE), mirrors (PANFPN_MIRRORS). A published file is used only if its hash begins as its name
says (detectron2: 6 digits of MD5, which tell a damaged file and no more); our own files carry theirs inside.
"""

import contextlib
import difflib
import hashlib
import os
import re
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path

from panfpn.fetch import fetched, without_password
from panfpn.files import first_line, replacing
from panfpn.weights.exported import SUFFIXES
from panfpn.weights.hub import from_hub, hub_name

SHIPPED = "camvid_lite0"  # the model in the package
_LARGEST = 4 << 30  # bytes of a download
_PICKLES = (".pth", ".pkl")
EXPORTED = tuple(SUFFIXES.values())  # files of panfpn.weights.exported
_SPELT = {"sha256": "SHA-256", "md5": "MD5"}
_ADDRESS = "https://download.openmmlab.com/mmsegmentation/v0.5/sem_fpn"
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/COCO-PanopticSegmentation"
_MMDET = "https://download.openmmlab.com/mmdetection/v2.0/panoptic_fpn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published Semantic FPN: its file, classes, scores in percent, and what it took on V100s."""

    file: str
    table: str
    miou: float
    miou_flip: float  # multi-scale and flip
    fps: float  # images per second, one at a time
    train_gb: float  # memory of a training step on one of four GPUs
    architecture: str = "SemanticFPN"

    @property
    def url(self) -> str:
        """Where it was published."""
        return f"{_ADDRESS}/{self.file.split('_2020')[0]}/{self.file}"

    @property
    def digest(self) -> str:
        """The beginning of its hash, which stands in its name."""
        return _hash_in(self.file)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPanoptic:
    """A published Panoptic FPN for COCO: where its file is, and its scores in percent."""

    url: str
    pq: float
    pq_things: float | None = None
    pq_stuff: float | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    table: str = "coco_panoptic"
    architecture: str = "PanopticFPN"

    @property
    def file(self) -> str:
        """Its name where it was published."""
        return self.url.rsplit("/", 1)[1]

    @property
    def digest(self) -> str:
        """The beginning of its hash, which stands in its name."""
        return _hash_in(self.file)[1]


PUBLISHED = {  # docs/facts.md, B1
    "fpn_r50_cityscapes": Published(
        file="fpn_r50_512x1024_80k_cityscapes_20200717_021437-94018a0d.pth", table="cityscapes", miou=74.52,
        miou_flip=76.08, fps=13.54, train_gb=2.8,
    ),
    "fpn_r101_cityscapes": Published(
        file="fpn_r101_512x1024_80k_cityscapes_20200717_012416-c5800d4c.pth", table="cityscapes", miou=75.80,
        miou_flip=77.40, fps=10.29, train_gb=3.9,
    ),
    "fpn_r50_ade20k": Published(
        file="fpn_r50_512x512_160k_ade20k_20200718_131734-5b5a6ab9.pth", table="ade20k", miou=37.49, miou_flip=39.09,
        fps=55.77, train_gb=4.9,
    ),
    "fpn_r101_ade20k": Published(
        file="fpn_r101_512x512_160k_ade20k_20200718_131734-306b5004.pth", table="ade20k", miou=39.35, miou_flip=40.72,
        fps=40.58, train_gb=5.9,
    ),
}  # fmt: skip
PUBLISHED_PANOPTIC = {  # docs/facts.md, C1, D
    "panoptic_fpn_r50_coco_1x": PublishedPanoptic(
        url=f"{_DETECTRON2}/panoptic_fpn_R_50_1x/139514544/model_final_dbfeb4.pkl", pq=39.4, box_ap=37.6, mask_ap=34.7
    ),
    "panoptic_fpn_r50_coco_3x": PublishedPanoptic(
        url=f"{_DETECTRON2}/panoptic_fpn_R_50_3x/139514569/model_final_c10459.pkl", pq=41.5, box_ap=40.0, mask_ap=36.5
    ),
    "panoptic_fpn_r101_coco_3x": PublishedPanoptic(
        url=f"{_DETECTRON2}/panoptic_fpn_R_101_3x/139514519/model_final_cafdb1.pkl", pq=43.0, box_ap=42.4, mask_ap=38.5
    ),
    **{
        f"mmdet_panoptic_fpn_{name}": PublishedPanoptic(
            url=f"{_MMDET}/{folder}/{folder}_{stamp}.pth", pq=pq, pq_things=things, pq_stuff=stuff
        )
        for name, folder, stamp, pq, things, stuff in (
            ("r50_coco_1x", "panoptic_fpn_r50_fpn_1x_coco", "20210821_101153-9668fd13", 40.2, 47.8, 28.9),
            ("r50_coco_3x", "panoptic_fpn_r50_fpn_mstrain_3x_coco", "20210824_171155-5650f98b", 42.5, 50.3, 30.7),
            ("r101_coco_1x", "panoptic_fpn_r101_fpn_1x_coco", "20210820_193950-ab9157a2", 42.2, 50.1, 30.3),
            ("r101_coco_3x", "panoptic_fpn_r101_fpn_mstrain_3x_coco", "20210823_114712-9c99acc4", 44.1, 52.1, 32.0),
        )
    },
}


def published_model(name: str) -> Published | PublishedPanoptic | None:
    """The published model of a name."""
    return PUBLISHED.get(name) or PUBLISHED_PANOPTIC.get(name)


def published_as(file: Path) -> Published | PublishedPanoptic | None:
    """The published model whose file has this name."""
    everything: dict[str, Published | PublishedPanoptic] = {**PUBLISHED, **PUBLISHED_PANOPTIC}
    return next((model for model in everything.values() if model.file == file.name), None)


def shipped_model() -> Path:
    """The street-scene model that ships with panfpn (CamVid classes; see docs/camvid_lite0.md)."""
    return Path(str(resources.files("panfpn") / "weights" / f"{SHIPPED}.safetensors"))


def model_file(name: str | Path) -> Path:
    """The file of a model: as `find_model`, with `SHIPPED`; a run folder stands for its released weights."""
    return shipped_model() if str(name) == SHIPPED else _released(find_model(name))


def local_model(name: str | Path) -> Path | None:
    """The file of a model, if it is here: a path, or a name in PANFPN_WEIGHTS; nothing is fetched."""
    if str(name) == SHIPPED:
        return shipped_model()
    path = _local(Path(name).expanduser(), str(name), [])
    return None if path is None else _released(path)


def _released(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


def find_model(name: str | Path) -> Path:
    """The local file (or run folder) of a model: a path, a name in PANFPN_WEIGHTS, a published one, or OWNER/REPO.

    Raises:
        ValueError: nothing of that name (it says where it looked), or a file whose hash is not the one in its name.
    """
    path, text = Path(name).expanduser(), str(name)
    searched: list[str] = []
    local = _local(path, text, searched)
    if local is not None:
        return local
    if published := published_model(text):
        return _fetched(published, searched)
    if path.is_absolute() or path.suffix in (*_PICKLES, *EXPORTED, ".pt", ".safetensors"):
        raise ValueError(f"{path}: no such file (nor in a folder of {searched[1]})")
    if repository := hub_name(text):
        if _is_folder(path.parent):  # a typing error in a path must not fetch a stranger's model
            raise ValueError(f"{path}: no such file or folder (the repository of that name on the Hub: hf:{text})")
        try:
            return from_hub(*repository)
        except ValueError as error:
            searched.append(f"the Hugging Face Hub, repository {repository[0]} ({error})")
        raise ValueError(f"no model {text!r}; looked in {'; '.join(searched)}")
    known = [*PUBLISHED, *PUBLISHED_PANOPTIC]
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known names: {', '.join(known)}"
    raise ValueError(f"no model {text!r}; looked in {'; '.join(searched)}; {hint}")


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def _local(path: Path, text: str, searched: list[str]) -> Path | None:
    """The file at a path, or of a name in a folder of PANFPN_WEIGHTS; `searched` gets where it was looked for."""
    with contextlib.suppress(OSError):  # a name too long for the file system is no path
        if path.exists():
            return _vouched(path)
    published = published_model(text)
    wanted = [text, *(text + suffix for suffix in (".safetensors", *_PICKLES))] + (
        [published.file] if published else []
    )
    climbs = path.is_absolute() or ".." in path.parts  # a name is looked up in folders, a path is not
    named = "" if climbs else os.environ.get("PANFPN_WEIGHTS", "")
    folders = [Path(f).expanduser() for f in named.split(os.pathsep) if f]
    searched += [f"the path {path}", f"PANFPN_WEIGHTS ({', '.join(map(str, folders)) or 'not set'})"]
    for folder in folders:
        for file in wanted:
            if (folder / file).is_file():
                return _vouched(folder / file, published.file if published and file.endswith(_PICKLES) else None)
    return None


def _hash_in(name: str) -> tuple[str, str]:
    """What a published name says of its file: which hash, and how it begins."""
    match = re.search(r"-([0-9a-f]{8})\.pth$|_([0-9a-f]{6})\.pkl$", name)
    assert match is not None
    return ("sha256", match[1]) if match[1] else ("md5", match[2])


def _hash(file: Path, algorithm: str) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _vouched(file: Path, published: str | None = None) -> Path:
    """The file, if its hash begins as its name says, or the name under which it was published; ours carry theirs."""
    if published is None and re.search(r"_\d{8}_\d{6}-[0-9a-f]{8}\.pth$|^model_final_[0-9a-f]{6}\.pkl$", file.name):
        published = file.name
    algorithm, digest = _hash_in(published) if published else ("", "")
    if digest and file.is_file() and not (actual := _hash(file, algorithm)).startswith(digest):
        raise ValueError(
            f"{file}: its {_SPELT[algorithm]} begins with {actual[: len(digest)]}, not with {digest} as its name says; "
            "it is damaged or was changed: get it again, or give it another name"
        )
    return file


def _fetched(published: Published | PublishedPanoptic, searched: list[str]) -> Path:
    """The published file out of the cache, or downloaded into it."""
    cache = Path(os.environ.get("PANFPN_CACHE") or Path.home() / ".cache" / "panfpn").expanduser()
    target = cache / published.file
    try:
        if target.is_file():
            return _vouched(target, published.file)
        searched.append(f"{cache}")
    except ValueError as error:  # a damaged download is fetched again
        searched.append(str(error))
    mirrors = os.environ.get("PANFPN_MIRRORS", "").split()
    for url in [*(f"{mirror.rstrip('/')}/{published.file}" for mirror in mirrors), published.url]:
        try:
            _download(url, target, published)
            return target
        except (OSError, HTTPException, ValueError) as error:  # urllib's errors are OSErrors
            searched.append(f"{without_password(url)} ({first_line(error)})")
    raise ValueError(
        f"the published file {published.file} could not be had; looked in {'; '.join(searched)}; put it into a folder "
        "that PANFPN_WEIGHTS names, or name a mirror in PANFPN_MIRRORS"
    )


def _download(url: str, target: Path, published: Published | PublishedPanoptic) -> None:
    from panfpn.progress import progress_bar  # noqa: PLC0415 - only a download shows one

    with replacing(target) as temporary:
        done = 0
        with temporary.open("wb") as file, progress_bar(target.name, 0, unit="MiB") as advance:
            for block, size in fetched(url, limit=_LARGEST, schemes=("http", "https", "file")):
                done += len(block)
                file.write(block)
                advance(done >> 20, size >> 20)
        algorithm, digest = _hash_in(published.file)
        actual = _hash(temporary, algorithm)
        if not actual.startswith(digest):
            raise ValueError(f"{_SPELT[algorithm]} {actual[: len(digest)]}… instead of {digest}…")
