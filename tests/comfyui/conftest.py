"""A real ComfyUI, driven over HTTP as people's browsers do.

Set COMFYUI_DIR to a ComfyUI checkout whose requirements are installed, and COMFYUI_PYTHON to its
interpreter if it has one of its own, COMFYUI_FLAGS to more flags for it (such as --fp16-intermediates), and
COMFYUI_EMULATED_CUDA to 1 for a GPU that tests/emulated_cuda makes of the CPU; without COMFYUI_DIR these tests are
skipped.
"""

import copy
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
import torch
from PIL import Image

import birefnet_core as bc
from tests.comfyui.workflows import TEMPLATES

PACK = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 240, 240

# A pack with modules of common names, which it puts before all others, a node that real packs have by accident, and
# one that makes a value for any list.
NEIGHBOUR = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))


class NoFrames:
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (torch.zeros(0, 32, 32, 3),)


class AnyType(str):
    def __ne__(self, other):
        return False


class Name:
    RETURN_TYPES, FUNCTION, CATEGORY = (AnyType("*"),), "make", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING",)}}

    def make(self, name):
        return (name,)


NODE_CLASS_MAPPINGS = {"NoFrames": NoFrames, "Name": Name}
"""
# ComfyUI's command line takes --cpu or a memory mode of a GPU, not both.
MEMORY_MODES = {"--lowvram", "--novram", "--highvram"}
START_ON_CPU = """
import runpy
import sys
sys.argv[0] = "main.py"
sys.path.insert(0, "")
import comfy.options
comfy.options.enable_args_parsing()
from comfy.cli_args import args
args.cpu = True
runpy.run_path("main.py", run_name="__main__")
"""
# With COMFYUI_EMULATED_CUDA=1: on an emulated GPU, see tests/emulated_cuda.
START_ON_EMULATED_CUDA = f"""
import runpy
import sys
sys.argv[0] = "main.py"
sys.path[:1] = [{str(PACK)!r}]
from tests import emulated_cuda
emulated_cuda.start()
sys.path[:1] = [""]
runpy.run_path("main.py", run_name="__main__")
"""
DECOYS = ("utils", "models", "nodes", "config", "masks", "network", "losses")


class ComfyUI:
    """A server with this pack and a clumsy neighbour in its custom_nodes.

    Args:
        tree: ComfyUI's checkout.
        base: An empty folder for its files.
        environment: Variables it gets, beside those of this process.
        flags: More of its flags.
    """

    def __init__(self, tree: str, base: Path, environment: dict[str, str], flags: tuple[str, ...] = ()) -> None:
        self.tree, self.base, self.flags = tree, base, flags
        neighbour = base / "custom_nodes" / "a_neighbour"
        for folder in (neighbour, *(base / name for name in ("input", "output", "temp", "user", "models"))):
            folder.mkdir(parents=True)
        (base / "custom_nodes" / "birefnet").symlink_to(PACK)
        (neighbour / "__init__.py").write_text(NEIGHBOUR)
        for name in DECOYS:
            (neighbour / f"{name}.py").write_text("raise RuntimeError('a decoy was imported')")
        self.start(environment)

    def start(self, environment: dict[str, str]) -> None:
        """Starts the server and waits until it answers; its log begins anew."""
        base = self.base
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = base / "server.log"
        flags = *self.flags, *os.environ.get("COMFYUI_FLAGS", "").split()
        program = ["-c", START_ON_CPU] if MEMORY_MODES & set(flags) else ["main.py", "--cpu"]
        if os.environ.get("COMFYUI_EMULATED_CUDA"):
            program = ["-c", START_ON_EMULATED_CUDA]
        command = [
            os.environ.get("COMFYUI_PYTHON") or sys.executable, *program,
            "--listen", "127.0.0.1", "--port", str(port),
            "--base-directory", str(base), "--user-directory", str(base / "user"),
            "--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes",
            "--disable-all-custom-nodes", "--whitelist-custom-nodes", "birefnet", "a_neighbour",
            *flags,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.tree, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
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
        if self.process.poll() is not None:
            return
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

    def submit(self, workflow: dict, client: str = "") -> str:
        """Queues a workflow in API format and returns its id. A client is sent what happens over its web socket.

        Raises:
            AssertionError: The server refused it.
        """
        body = {"prompt": workflow, **({"client_id": client} if client else {})}
        try:
            return json.loads(self.request("/prompt", json.dumps(body).encode()))["prompt_id"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"the workflow was refused: {error.read().decode()}") from error

    def wait(self, prompt: str, seconds: float = RUN_SECONDS) -> dict:
        """The history entry of a workflow that has ended, well or badly."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            entry = self.get(f"/history/{prompt}").get(prompt)
            if entry and "completed" in (entry.get("status") or {}):
                return entry
            time.sleep(0.2)
        raise AssertionError(f"the workflow did not end in {seconds} s:\n{self.log()[-3000:]}")

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


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(TEMPLATES, [])
    if rows:
        terminalreporter.section("templates")
        for row in (("template", "seconds", "outputs", "result"), ("---",) * 4, *rows):
            terminalreporter.write_line(f"| {' | '.join(row)} |")


@pytest.fixture(scope="session")
def demo_model():
    """The checkpoint that comes with the pack."""
    return bc.load_model("demo")


@pytest.fixture(scope="session")
def small_model(filled):
    """A small network with known weights, trained (so it says) at 256 x 256."""
    return bc.model_from_state_dict(filled("pvt_v2_b0"))


@pytest.fixture(scope="session")
def other_model(small_model):
    """A network with other weights."""
    other = copy.deepcopy(small_model)
    with torch.no_grad():
        other.localization.squeeze.conv_in.weight.neg_()
    return other


@pytest.fixture(scope="session")
def start_comfyui(tmp_path_factory):
    """Starts servers, each with an empty folder, and stops them at the end."""
    tree, servers = os.environ.get("COMFYUI_DIR"), []

    def start(*flags: str, **environment: str) -> ComfyUI:
        if not tree:
            pytest.skip("COMFYUI_DIR is not set")
        servers.append(ComfyUI(tree, tmp_path_factory.mktemp("comfyui"), environment, flags))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def comfyui(start_comfyui, small_model, other_model, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    paths = {"tests": {"base_path": str(elsewhere), "birefnet": "ours", "background_removal": "theirs"}}
    (elsewhere / "paths.yaml").write_text(json.dumps(paths))  # JSON is YAML
    server = start_comfyui("--extra-model-paths-config", str(elsewhere / "paths.yaml"), HF_HUB_OFFLINE="1")
    bc.save_checkpoint(other_model, elsewhere / "ours" / "extra.safetensors", training_size=(256, 256))
    bc.save_checkpoint(other_model, elsewhere / "theirs" / "extra_shared.safetensors", training_size=(256, 256))
    folder = server.base / "models"
    bc.save_checkpoint(small_model, folder / "birefnet" / "small.safetensors", training_size=(256, 256))
    bc.save_checkpoint(small_model, folder / "birefnet" / "slow.safetensors", training_size=(1536, 1536))
    bc.save_checkpoint(other_model, folder / "birefnet" / "other.safetensors", training_size=(256, 256))
    bc.save_checkpoint(small_model, folder / "background_removal" / "shared.safetensors", training_size=(256, 256))
    (folder / "birefnet" / "broken.safetensors").write_bytes(b"these are no weights at all")
    return server
