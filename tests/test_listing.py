"""Files below a folder: through links, in order, and what is left out is counted."""

import os
from pathlib import Path

from panfpn.listing import LeftOut, files_in


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for path in (root / "b/1.png", root / "a.png", other / "2.png", root / ".git/3.png", root / ".hidden.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "linked").symlink_to(other)
    (root / "again").symlink_to(other)  # a second way to the same files is a folder of its own
    (root / "b/loop").symlink_to(root)
    (other / "self").symlink_to(other)
    (root / "gone.png").symlink_to(tmp_path / "nothing")
    left_out = LeftOut()
    found = [path.relative_to(root).as_posix() for path in files_in(root, left_out)]
    assert found == ["a.png", "again/2.png", "b/1.png", "linked/2.png"]
    assert left_out.counts == {"hidden": 2, "links to a folder that holds them": 3, "links to nothing": 1}
    assert str(left_out).startswith(
        f"2 hidden ({root}/.git, …); 3 links to a folder that holds them ({root}/again/self"
    )


def test_special_files_are_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    left_out = LeftOut()
    assert not list(files_in(tmp_path, left_out)) and left_out.counts == {"neither file nor folder": 1}
