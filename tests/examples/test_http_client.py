"""The HTTP client ends with a sentence whatever the server does, and is safe against the names of its files."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"outputs": {"3": {"images": [{"filename": "c.png", "subfolder": "", "type": "output"}]}}}
DONE = {"status": {"completed": True, "status_str": "success", "messages": []}}


class Server(http.server.ThreadingHTTPServer):
    """Stands for ComfyUI: ``responses`` holds what each path gives, in bytes or as JSON."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.received = []
        self.responses = {
            "/upload/image": {"name": "x.png"},
            "/prompt": {"prompt_id": "1"},
            "/history": {"1": {**DONE, **IMAGES}},
            "/queue": {"queue_running": [], "queue_pending": []},
            "/view": b"the cut-out",
        }


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.server.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        response = self.server.responses["/history" if path.startswith("/history") else path]
        code, response = response if isinstance(response, tuple) else (200, response)
        body = response if isinstance(response, bytes) else json.dumps(response).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(b"an image")
    return path


def client(image, output, server):
    address = server if isinstance(server, str) else f"http://127.0.0.1:{server.server_port}"
    command = [sys.executable, ROOT / "examples" / "http_client.py", image, output, "--server", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, errors="replace")


def test_a_cutout_is_written(server, image, tmp_path):
    run = client(image, tmp_path / "out.png", server)
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "out.png").read_bytes() == b"the cut-out"


def test_no_run_equals_an_earlier_one_which_comfyui_would_leave_out(server, image, tmp_path):
    for _ in range(2):
        assert client(image, tmp_path / "out.png", server).returncode == 0
    first, second = (json.loads(body)["prompt"] for body in server.received if body.startswith(b"{"))
    assert first["2"] == second["2"] and first["3"] != second["3"]


@pytest.mark.parametrize(
    "name", ['a"\r\nX-Evil: 1\r\n\r\n.png', '"; filename="b.png', os.fsdecode(b"raw\xff.png"), "猫.png"]
)
def test_names_cannot_leave_their_header(server, image, tmp_path, name):
    run = client(image.rename(tmp_path / name), tmp_path / "out.png", server)
    assert run.returncode == 0
    head = server.received[0].split(b"\r\n\r\n")[0].split(b"\r\n")
    assert len(head) == 2
    assert head[1].count(b'"') == 4
    assert server.received[0].count(b"an image") == 1


def test_an_image_is_not_replaced(server, image, tmp_path):
    (tmp_path / "link.png").symlink_to(image)
    for output in (image, tmp_path / "link.png"):
        run = client(image, output, server)
        assert run.returncode == 1
        assert "is the image itself" in run.stderr
    assert image.read_bytes() == b"an image"


@pytest.mark.parametrize(
    ("path", "response", "words"),
    [
        ("/upload/image", b"<html>", "expected a JSON object"),
        ("/upload/image", (500, b"full"), "was refused (500): full"),
        ("/upload/image", {"error": "no"}, "did not store the image"),
        ("/prompt", (400, {"error": "no such model\x1b[31m"}), "no such model"),
        ("/prompt", {"prompt_id": [1]}, "something else than ComfyUI does"),
        ("/history", b"[]", "expected a JSON object"),
        ("/history", {"1": {"status": "\x1b[31m"}}, "something else than ComfyUI does"),
        ("/history", {"1": {"outputs": {"3": {"images": [1]}}}}, "something else than ComfyUI does"),
        ("/history", {"1": {"status": None}}, "without an image"),
        ("/history", {"1": {**DONE, "outputs": {}}}, "without an image"),
        ("/history", {"1": {**DONE, "outputs": {"3": {"images": []}}}}, "without an image"),
        ("/history", {"1": {"status": {"status_str": "error", "messages": []}}}, "cancelled"),
        (
            "/history",
            {
                "1": {
                    "status": {
                        "status_str": "error",
                        "messages": [["execution_error", {"node_type": "X", "exception_message": "no memory"}]],
                    }
                }
            },
            "X: no memory",
        ),
        pytest.param("/history", {}, "no longer knows the run", marks=pytest.mark.slow),  # after seconds
        ("/queue", b"?", None),
        ("/view", (404, b""), "was refused (404)"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_sentence(server, image, tmp_path, path, response, words):
    server.responses[path] = response
    run = client(image, tmp_path / "out.png", server)
    if words is None:
        assert run.returncode == 0
        return
    assert run.returncode == 1
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert "\x1b" not in run.stderr
    assert not (tmp_path / "out.png").exists()


def test_no_server_and_no_image_are_told(image, tmp_path):
    for server in ("http://127.0.0.1:9", "127.0.0.1:9", "http://"):
        run = client(image, tmp_path / "out.png", server)
        assert run.returncode == 1
        assert "no ComfyUI answers at" in run.stderr
    run = client(tmp_path / "none.png", tmp_path / "out.png", "http://127.0.0.1:9")
    assert "none.png cannot be read" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("output", [".", "nowhere/out.png"])
def test_an_output_that_cannot_be_is_told_before_the_work(server, image, tmp_path, output):
    run = client(image, tmp_path / output, server)
    assert run.returncode == 1
    assert "cannot be written" in run.stderr
    assert server.received == []
