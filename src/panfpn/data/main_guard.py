"""Whether a process that is spawned would run the user's script again. In: the program that runs. Out: an answer."""

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType


def check_main_guard(num_workers: int) -> None:
    """ValueError where workers would run the user's script again."""
    if num_workers and multiprocessing.get_start_method() != "fork" and not has_main_guard():
        file = getattr(sys.modules["__main__"], "__file__", None)
        raise ValueError(f"{file}: line {_main_line()} trains or evaluates, and each data worker would run it again; "
                         "put it under `if __name__ == \"__main__\":`, or set data.num_workers to 0")  # fmt: skip


def has_main_guard() -> bool:
    """Whether a process that is spawned here does not come to this place again: the user's script has a guard."""
    file, line = getattr(sys.modules["__main__"], "__file__", None), _main_line()
    if file is None or line is None:  # called from somewhere else, a thread for instance
        return True
    try:
        statements = ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True
    running = [statement for statement in statements if statement.lineno <= line][-1:]
    return not running or any(isinstance(s, ast.If) and "__name__" in ast.unparse(s.test) for s in running)


def _main_line() -> int | None:
    """The line of the user's script that runs now, if it is one."""
    main = sys.modules["__main__"].__dict__
    frame: FrameType | None = sys._getframe()
    while frame and not (frame.f_globals is main and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    return None if frame is None else frame.f_lineno
