"""ComfyUI's page in a headless Chromium: scripts that run in it, and pictures of it."""

import io
import shutil
import time
from pathlib import Path

from PIL import Image

START_SECONDS = 180
READY = "return !!(window.app?.graph && window.LiteGraph?.registered_node_types?.['BiRefNetSegment'])"
OPEN = "const [graph, done] = arguments; app.loadGraphData(graph).then(() => done(null), e => done(String(e)))"
MISSING = "return app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
PROMPT = "const [done] = arguments; app.graphToPrompt().then(p => done(p.output), e => done(String(e)))"
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
document.querySelectorAll(around).forEach(e => { e.style.display = 'none'; });
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
        "disable-sync", "no-first-run", "window-size=1500,800", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    page.set_script_timeout(60)
    try:
        page.get(url)
        end = time.monotonic() + START_SECONDS
        while not page.execute_script(READY):
            assert time.monotonic() < end, "the page did not come up"
            time.sleep(0.5)
        time.sleep(3)
    except BaseException:
        page.quit()
        raise
    return page


def picture_of(page) -> Image.Image:
    """The workflow that is open, cut out of the page."""
    box = page.execute_script(FIT)
    time.sleep(2)
    picture = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
    return picture.crop((*map(round, box[:2]), *(min(round(a), b) for a, b in zip(box[2:], picture.size, strict=True))))
