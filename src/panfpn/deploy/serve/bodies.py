"""What a request asks for, and the image in it. In: headers and bodies. Out: a media type; a file and its name."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, cast

from fastapi import HTTPException, Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from panfpn.deploy.serve.answers import TYPES

_IN_MEMORY = 1 << 20  # bytes of a body; more wait on disk


def wanted_type(accept: str, usual: str) -> str:
    """The best of the media types that can be answered, of equals the `usual`; HTTPException if there is none."""
    qualities: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights = [p[2:] for p in parameters if p.startswith("q=")]
        try:
            qualities[name] = float(weights[0]) if weights else 1.0
        except ValueError:
            qualities[name] = 0.0
    best, answer = 0.0, ""
    for media_type in (usual, "application/json", *TYPES):
        kinds = (media_type, media_type.split("/")[0] + "/*", "*/*")
        quality = next((qualities[kind] for kind in kinds if kind in qualities), 0.0)
        if quality > best:
            best, answer = quality, media_type
    if not answer:
        raise HTTPException(406, f"the answer is application/json or {' or '.join(TYPES)}; Accept names none of them")
    return answer


def _utf8(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with a form's boundary as the only parameter of its type: a client chooses no codec here."""
    kind, parameters = parse_options_header(dict(headers)[b"content-type"])
    boundary = b"; boundary=" + parameters[b"boundary"] if b"boundary" in parameters else b""
    return [(key, kind + boundary if key == b"content-type" else value) for key, value in headers]


@asynccontextmanager
async def received_image(request: Request) -> AsyncIterator[tuple[BinaryIO, str]]:
    """The image's file and what it is called: a form's file, or the whole body; large ones wait on disk."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        plain = Request({**request.scope, "headers": _utf8(request.scope["headers"])}, request.receive)
        async with plain.form(max_files=2, max_fields=16) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if len(files) != 1:
                raise HTTPException(422, f"the form has {len(files)} files; send one image a request")
            yield files[0].file, (files[0].filename or "the image")[-100:]
    else:
        async with spooled_body(request) as file:
            yield file, "the image"


@asynccontextmanager
async def spooled_body(request: Request) -> AsyncIterator[BinaryIO]:
    """The whole body as a file; a large one waits on disk."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spooled:
        async for block in request.stream():
            spooled.write(block)
        spooled.seek(0)
        yield cast(BinaryIO, spooled)
