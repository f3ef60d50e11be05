"""`panfpn serve`."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from panfpn.extras import optional
from panfpn.verbs.options import EngineName, parse_options


@dataclass(frozen=True)
class _Serve:
    model: tyro.conf.Positional[str | None] = None
    """Release file, run folder, file of panfpn export, checkpoint, published name or OWNER/REPO on the Hugging Face
    Hub; without it, the street-scene model that ships with panfpn."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in, who then need a key."""
    port: int = 8000
    """0 takes any that is free."""
    device: str = "auto"
    precision: str = "auto"
    engine: EngineName = "torch"
    """What runs the network; the last two are for CPUs (pip install 'panfpn[export]'), and openvino is the fastest."""
    key_file: Path | None = None
    """A file with a key a line; requests carry one as X-API-Key, as Bearer token, or as password."""
    open: bool = False
    """Let other machines in without a key."""
    max_megapixels: float | None = None
    """The largest image; without it 50, or as many as the memory allows."""
    queue: int = 16
    """Images that may wait; more are answered with 503 and Retry-After."""
    workers: Annotated[int | None, tyro.conf.arg(aliases=["-w"])] = None
    """Images at once; without it one a core, at most 4. The cores are divided among them: 1 answers a single request
    soonest."""
    camera: str | None = None
    """A camera's number, an rtsp address or a video, whose labelled picture the page and /live show."""
    log: bool = False
    """Print a line for each request."""


_HELP = """panfpn serve [MODEL] [options]

Put a model behind HTTP: POST an image to /predict, or open the page. /docs describes all routes; /metrics counts for
Prometheus; /v2 speaks the Open Inference Protocol. Ends at Ctrl-C or SIGTERM, when what was accepted is answered.
  curl --data-binary @photo.jpg localhost:8000/predict
  curl --data-binary @photo.jpg -H 'Accept: image/png' 'localhost:8000/predict?what=overlay' -o overlay.png"""


def run_serve(arguments: list[str]) -> int:
    """Serve a model."""
    options = asdict(parse_options(_Serve, "serve", arguments, _HELP))
    for package in ("fastapi", "fastapi_offline", "uvicorn", "python_multipart", "prometheus_client"):
        optional(package, "serve", "panfpn serve needs")
    from panfpn.deploy.serve.run import Settings, serve

    settings = Settings(megapixels=options.pop("max_megapixels"), **options)
    serve(settings, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    return 0
