"""Packages that an extra brings. In: a package's name. Out: the package, or the extra to install."""

import importlib
from typing import Any


def optional(package: str, extra: str, needed: str) -> Any:
    """`package` of the extra; without it ImportError: "`needed` package; install it with …".

    `needed` says who needs it, up to the verb.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.replace("_", "-")
        raise ImportError(f"{needed} {name}; install it with pip install 'panfpn[{extra}]'") from error
