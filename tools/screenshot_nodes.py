"""Takes the screenshots of the nodes in docs/nodes.md from ComfyUI's page.

    COMFYUI_DIR=... [COMFYUI_PYTHON=...] python tools/screenshot_nodes.py [--only NODE_ID ...]

Needs chromium, chromedriver and the Python package selenium.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

from tests.comfyui.browser import open_page, picture_of  # noqa: E402
from tests.comfyui.conftest import ComfyUI  # noqa: E402

DRAWN_ON = {"BiRefNetBoxSubject", "BiRefNetPointAtSubject"}  # in Nodes 2.0 only: docs/images/pointing.jpg shows them
NODES = tuple(sorted({path.stem for path in (ROOT / "web" / "docs").glob("*.md")} - DRAWN_ON))
WIDTH, MOST_HEIGHT, QUALITY = 420, 640, 85  # of a screenshot, in pixels
FRAME = 28  # what picture_of leaves around a node, less a little; the page's own controls reach into it
PLACE = """
const node = LiteGraph.createNode(arguments[0]);
app.canvas.show_info = false;
app.graph.clear(); node.pos = [0, 0]; app.graph.add(node);"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NODES, default=NODES, metavar="NODE_ID", help="default: all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyUI(os.environ["COMFYUI_DIR"], Path(folder, "comfyui"), {"HF_HUB_OFFLINE": "1"})
        try:
            page = open_page(server.url, Path(folder, "chromium"))
            try:
                for name in args.only:
                    page.execute_script(PLACE, name)
                    picture = picture_of(page)
                    picture = picture.crop((FRAME, FRAME // 2, picture.width - FRAME, picture.height))
                    picture.thumbnail((WIDTH, MOST_HEIGHT))
                    picture.save(ROOT / "docs" / "images" / f"nodes_{name}.jpg", quality=QUALITY)
                    print(f"{name}: {picture.width} x {picture.height}")
            finally:
                page.quit()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
