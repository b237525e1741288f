"""ComfyUI's page in a headless Chromium: scripts that run in it, and pictures of it."""

import contextlib
import io
import json
import shutil
import time
import urllib.request
from pathlib import Path

from PIL import Image

START_SECONDS = 180
WINDOW = "2200,1300"
READY = "return !!(window.app?.graph && window.LiteGraph?.registered_node_types?.['BiRefNetSegment'])"
OPEN = "const [graph, done] = arguments; app.loadGraphData(graph).then(() => done(null), e => done(String(e)))"
MISSING = "return app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
PROMPT = "const [done] = arguments; app.graphToPrompt().then(p => done(p.output), e => done(String(e)))"
RENDERER = """
const [vue, done] = arguments;
app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue).then(() => done(), e => done(String(e)));"""
FIT = """
const nodes = app.graph.nodes, canvas = app.canvas;
const left = Math.min(...nodes.map(n => n.pos[0])), top = Math.min(...nodes.map(n => n.pos[1])) - 40;
const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]));
const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]));
const room = canvas.canvas;
const fits = Math.min((room.clientWidth - 160) / (right - left), (room.clientHeight - 150) / (bottom - top));
const scale = Math.min(fits, 2);  // a single small node would reach under the page's own controls
canvas.ds.scale = scale; canvas.ds.offset = [-left + 100 / scale, -top + 110 / scale];
const around = '.p-toast, .p-dialog-mask, .graph-canvas-menu, #graph-canvas-container > .pointer-events-none';
const drawn = '[data-node-id], [data-testid=transform-pane]';
document.querySelectorAll(around).forEach(e => {
  if (!e.querySelector(drawn) && !e.matches(drawn)) e.style.display = 'none';
});
canvas.show_info = false;
canvas.draw(true, true);
return [50, 86, 150 + (right - left) * scale, 130 + (bottom - top) * scale];"""


def open_page(url: str, profile: Path):
    """A browser that shows ComfyUI, with our nodes registered.

    Raises:
        FileNotFoundError: There is no Chromium.
    """
    from selenium import webdriver

    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (browser and driver):
        raise FileNotFoundError("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update",
        "disable-sync", "no-first-run", f"window-size={WINDOW}", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    page.set_script_timeout(60)
    settings = {"Comfy.TutorialCompleted": True}  # else a new user is shown the templates first
    request = urllib.request.Request(f"{url}/settings", json.dumps(settings).encode(), method="POST")
    urllib.request.urlopen(request, timeout=60).close()
    try:
        page.get(url)
        wait_until_ready(page)
    except BaseException:
        page.quit()
        raise
    return page


@contextlib.contextmanager
def page_or_skip(url: str, profile: Path):
    """``open_page`` for a test, which is skipped where there is no browser to drive."""
    import pytest

    pytest.importorskip("selenium")
    try:
        page = open_page(url, profile)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    try:
        yield page
    finally:
        page.quit()


def wait_until_ready(page) -> None:
    """Until our nodes are registered."""
    end = time.monotonic() + START_SECONDS
    while not page.execute_script(READY):
        assert time.monotonic() < end, "the page did not come up"
        time.sleep(0.5)
    time.sleep(3)


def whole_page(page) -> Image.Image:
    return Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")


def picture_of(page) -> Image.Image:
    """The workflow that is open, cut out of the page."""
    box = page.execute_script(FIT)
    time.sleep(2)
    picture = whole_page(page)
    return picture.crop((*map(round, box[:2]), *(min(round(a), b) for a, b in zip(box[2:], picture.size, strict=True))))


def use_renderer(page, vue: bool) -> None:
    """Shows nodes as Nodes 2.0 (Vue) or on the canvas (LiteGraph)."""
    page.execute_async_script(RENDERER, vue)
    time.sleep(2)


def run_open_workflow(server, page, seconds: float = 300) -> dict:
    """Queues the workflow that is open, as a click on Run does, and waits for its end.

    Returns:
        Its entry of the history.

    Raises:
        RuntimeError: It was refused, failed, or did not end in time.
    """
    before = set(server.get("/history"))
    page.execute_script("app.queuePrompt(0)")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for prompt, entry in server.get("/history").items():
            if prompt not in before and "completed" in (entry.get("status") or {}):
                if entry["status"]["status_str"] != "success":
                    raise RuntimeError(str(entry["status"]["messages"]))
                time.sleep(2)  # the page fetches the images
                return entry
        time.sleep(0.5)
    raise RuntimeError(f"the workflow did not end in {seconds} s:\n{server.log()[-3000:]}")
