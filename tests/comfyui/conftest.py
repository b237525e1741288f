"""A real ComfyUI, driven over HTTP as people's browsers do.

Set COMFYUI_DIR to a ComfyUI checkout whose requirements are installed, and COMFYUI_PYTHON to its
interpreter if it has one of its own, and COMFYUI_FLAGS to more flags for it (such as --fp16-intermediates);
without COMFYUI_DIR these tests are skipped.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import birefnet_core as bc

PACK = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 240, 240


class ComfyUI:
    """One server with this pack, and nothing else, in its custom_nodes."""

    def __init__(self, tree: str, base: Path) -> None:
        self.base = base
        for folder in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / folder).mkdir()
        (base / "custom_nodes" / "birefnet").symlink_to(PACK)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = base / "server.log"
        command = [
            os.environ.get("COMFYUI_PYTHON") or sys.executable, "main.py", "--cpu",
            "--listen", "127.0.0.1", "--port", str(port),
            "--base-directory", str(base), "--user-directory", str(base / "user"),
            "--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes",
            "--disable-all-custom-nodes", "--whitelist-custom-nodes", "birefnet",
            *os.environ.get("COMFYUI_FLAGS", "").split(),
        ]  # fmt: skip
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process.poll() is None, f"ComfyUI ended while starting:\n{self.log()[-3000:]}"
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"ComfyUI did not start in {START_SECONDS} s:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def request(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(self, path: str):
        return json.loads(self.request(path))

    def upload(self, path: Path) -> str:
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        return json.loads(self.request("/upload/image", body, f"multipart/form-data; boundary={edge}"))["name"]

    def submit(self, workflow: dict) -> str:
        """Queues a workflow in API format and returns its id.

        Raises:
            AssertionError: The server refused it.
        """
        try:
            return json.loads(self.request("/prompt", json.dumps({"prompt": workflow}).encode()))["prompt_id"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"the workflow was refused: {error.read().decode()}") from error

    def wait(self, prompt: str) -> dict:
        """The history entry of a workflow that has ended, well or badly."""
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end:
            entry = self.get(f"/history/{prompt}").get(prompt)
            if entry and "completed" in (entry.get("status") or {}):
                return entry
            time.sleep(0.2)
        raise AssertionError(f"the workflow did not end in {RUN_SECONDS} s:\n{self.log()[-3000:]}")

    def run(self, workflow: dict) -> dict:
        """Runs a workflow to its end; returns outputs by node id."""
        entry = self.wait(self.submit(workflow))
        assert entry["status"]["status_str"] == "success", failure(entry)
        return entry["outputs"]

    def pictures(self, outputs: dict, node: str) -> list[np.ndarray]:
        """The images a SaveImage or PreviewImage node wrote."""
        fields = ("filename", "subfolder", "type")
        queries = [urllib.parse.urlencode({k: item[k] for k in fields}) for item in outputs[node]["images"]]
        return [np.array(Image.open(io.BytesIO(self.request(f"/view?{query}")))) for query in queries]


def failure(entry: dict) -> str:
    """What went wrong in a workflow."""
    messages = dict(entry["status"]["messages"])
    return str(messages.get("execution_error", messages))


@pytest.fixture(scope="session")
def small_model(filled):
    """A small network with known weights, trained (so it says) at 256 x 256."""
    return bc.model_from_state_dict(filled("pvt_v2_b0"))


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory, small_model):
    tree = os.environ.get("COMFYUI_DIR")
    if not tree:
        pytest.skip("COMFYUI_DIR is not set")
    server = ComfyUI(tree, tmp_path_factory.mktemp("comfyui"))
    try:
        folder = server.base / "models"
        bc.save_checkpoint(small_model, folder / "birefnet" / "small.safetensors", training_size=(256, 256))
        bc.save_checkpoint(small_model, folder / "birefnet" / "slow.safetensors", training_size=(1536, 1536))
        bc.save_checkpoint(small_model, folder / "background_removal" / "shared.safetensors", training_size=(256, 256))
        (folder / "birefnet" / "broken.safetensors").write_bytes(b"these are no weights at all")
        yield server
    finally:
        server.stop()
