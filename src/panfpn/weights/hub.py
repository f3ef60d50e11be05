"""The Hugging Face Hub. In: OWNER/REPO, and a revision. Out: the file there, out of the cache or into it.

huggingface_hub caches, resumes and keeps tokens; HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are its variables.
"""

import re
from pathlib import Path

from panfpn.files import first_line, sha256

FILE = "model.safetensors"  # of every repository
_NAME = re.compile(r"(hf:)?(\w[\w.-]*/\w[\w.-]*)(@([\w.-]+(/[\w.-]+)*))?")


def hub_name(text: str) -> tuple[str, str | None] | None:
    """Repository and revision of `[hf:]OWNER/REPO[@REVISION]`; None for other text."""
    match = _NAME.fullmatch(text)
    return (match[2], match[4]) if match else None


def from_hub(repository: str, revision: str | None) -> Path:
    """`model.safetensors` of a repository.

    The Hub says the SHA-256 of large files before it sends them: what comes is compared with it, once.

    ValueError: no such repository, file or revision, no network and nothing in the cache, or another hash.
    """
    import huggingface_hub  # noqa: PLC0415 - only who asks for a repository pays for it

    known = huggingface_hub.try_to_load_from_cache(repository, FILE, revision=revision)
    try:
        file = Path(huggingface_hub.hf_hub_download(repository, FILE, revision=revision))
    except Exception as error:  # no network, no such repository, no such file: the hub's own classes
        raise ValueError(first_line(error)) from error
    blob = file.resolve()  # the cache names it by the hash that the Hub said
    if str(known) != str(file) and re.fullmatch("[0-9a-f]{64}", blob.name) and (actual := sha256(blob)) != blob.name:
        blob.unlink()
        file.unlink(missing_ok=True)
        raise ValueError(f"{FILE} has SHA-256 {actual[:12]}…, and the Hub says {blob.name[:12]}…; it was thrown away")
    return file
