"""The page in a browser, as someone uses it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from panfpn import Predictor
from panfpn.data.images import decode_image, decode_mask, read_image
from panfpn.data.layouts.scenes import scenes_table

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"],
        )
        yield browser
        browser.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    picture = np.zeros((90, 130, 3), np.uint8)
    picture[:40] = (230, 180, 140)
    picture[40:] = (90, 80, 90)
    picture[20:60, 30:60] = (30, 40, 140)
    file = tmp_path / "a photo.png"
    cv2.imwrite(str(file), picture)
    return file


@pytest.fixture
def page(browser: Any, client: httpx.Client) -> Iterator[Any]:
    yield from opened(browser, client)


def opened(browser: Any, client: httpx.Client, **size: Any) -> Iterator[Any]:
    """The page of a server; what it complains of, and hosts that it asks beside its own, fail the test."""
    page = browser.new_page(**size)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url) if not request.url.startswith(
        (str(client.base_url), "blob:", "data:")) else None)  # fmt: skip
    page.goto(str(client.base_url))
    yield page
    page.close()
    assert not troubles


def drop(page: Any, file: Path, kind: str = "image/png") -> None:
    """Let the file fall on the page."""
    transfer = page.evaluate_handle(
        """([bytes, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer; }""",
        [list(file.read_bytes()), file.name, kind],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def pixels(page: Any) -> np.ndarray:
    """What the canvas shows."""
    data = page.evaluate(
        """() => { const c = document.getElementById("picture");
            return [c.width, c.height, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]]; }"""
    )
    return np.array(data[2], np.uint8).reshape(data[1], data[0], 4)[:, :, :3]


def test_drop_hover_toggle_and_download(page: Any, photo: Path, shipped: Predictor) -> None:
    found = shipped(photo)
    drop(page, photo)
    page.wait_for_selector("#legend li")
    names = page.locator("#legend li span:nth-child(2)").all_inner_texts()
    assert names == list(found.shares())
    assert "130 × 90 pixels" in page.inner_text("#status")

    box = page.locator("#picture").bounding_box()
    for x, y in ((5, 5), (100, 80), (45, 40)):
        page.mouse.move(box["x"] + (x + 0.5) * box["width"] / 130, box["y"] + (y + 0.5) * box["height"] / 90)
        expected = found.table.names[found.labels[y, x]]
        assert page.inner_text("#under") == f"{expected} at {x}, {y}"

    image, before = read_image(photo), pixels(page)
    first = found.table.names.index(names[0])
    button = page.locator("#legend li button").first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    hidden = pixels(page)
    np.testing.assert_array_equal(hidden[found.labels == first], image[found.labels == first])
    np.testing.assert_array_equal(hidden[found.labels != first], before[found.labels != first])
    button.click()
    np.testing.assert_array_equal(pixels(page), before)
    page.fill("#opacity", "0")
    np.testing.assert_array_equal(pixels(page), image)

    saved = {}
    for what in ("png", "overlay", "json"):
        with page.expect_download() as download:
            page.click(f"#{what}")
        saved[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(saved) == {"a photo.png", "a photo_overlay.png", "a photo.json"}
    np.testing.assert_array_equal(decode_mask(saved["a photo.png"]), found.picture("labels"))
    np.testing.assert_array_equal(decode_image(saved["a photo_overlay.png"]), found.overlay())
    assert json.loads(saved["a photo.json"])["width"] == 130


def test_a_bad_file_is_said_and_the_page_goes_on(page: Any, photo: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(photo.read_bytes()[:60])
    drop(page, bad)
    page.wait_for_selector("#status.bad")
    assert "bad.png: not a readable image" in page.inner_text("#status")
    drop(page, photo)
    page.wait_for_selector("#legend li")
    assert page.locator("#status.bad").count() == 0


def test_images_that_browsers_cannot_show(page: Any, tmp_path: Path) -> None:
    file = tmp_path / "scan.tif"
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    cv2.imwrite(str(file), picture[:, :, ::-1])
    drop(page, file, "image/tiff")
    page.wait_for_selector("#legend li")
    page.fill("#opacity", "0")
    np.testing.assert_array_equal(pixels(page), picture)


def test_paste_keyboard_and_camera(page: Any, photo: Path) -> None:
    page.evaluate(
        """([bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
            window.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data })); }""",
        [list(photo.read_bytes())],
    )
    page.wait_for_selector("#legend li")
    with page.expect_file_chooser() as chooser:
        page.focus("#drop")
        page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    page.wait_for_selector("text=130 × 90 pixels")
    page.click("#camera")
    page.wait_for_selector("#video:not([hidden])")
    page.click("text=Take the picture")
    page.wait_for_selector("text=640 × 480 pixels")
    assert page.inner_text("#camera") == "Camera" and not page.is_visible("#video")


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Any, photo: Path) -> None:
    drop(page, photo)
    page.wait_for_selector("#legend li")
    reached = set()
    page.focus("#file")
    for _ in range(40):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        page.keyboard.press("Tab")
    assert {"file", "camera", "opacity", "drop", "picture", "png", "overlay", "json"} <= reached
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a, canvas")].filter((e) => !e.hidden &&
            !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length)).map((e) => e.id)"""
    )
    assert nameless == []
    assert page.get_attribute("#picture", "aria-label").startswith("The labelled image: ")


def test_a_phone(browser: Any, client: httpx.Client, photo: Path) -> None:
    for page in opened(browser, client, viewport={"width": 360, "height": 640}, has_touch=True):
        drop(page, photo)
        page.wait_for_selector("#legend li")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        legend, picture = (page.locator(one).bounding_box() for one in ("#legend", "#picture"))
        assert legend["y"] >= picture["y"] + picture["height"]


def test_things_are_listed_and_can_be_chosen(browser: Any, serving: Any, fake_panoptic_task: Any, photo: Path) -> None:
    predictor = Predictor(fake_panoptic_task(scenes_table()))
    found, image = predictor(photo), read_image(photo)
    things = [segment for segment in found.info if segment.thing]
    with serving(predictor) as client:
        for page in opened(browser, client):
            drop(page, photo)
            page.wait_for_selector("#things li")
            assert page.locator("#things li").count() == len(things)
            page.locator("#things li button").first.click()
            shown = pixels(page)
            others = found.segments != things[0].id
            np.testing.assert_array_equal(shown[others], image[others])
            assert (shown[~others] != image[~others]).any()
            page.focus("#picture")
            page.keyboard.press("Escape")
            assert (pixels(page)[others] != image[others]).any()
            inside = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 3)
            y, x = np.unravel_index(inside.argmax(), inside.shape)
            page.locator("#picture").scroll_into_view_if_needed()
            box = page.locator("#picture").bounding_box()
            page.mouse.click(box["x"] + (x + 0.5) * box["width"] / 130, box["y"] + (y + 0.5) * box["height"] / 90)
            np.testing.assert_array_equal(pixels(page), shown)
