"""Downloads in a real ComfyUI, from a Hub of the tests' own: progress, cancelling, full disk, no network, restart."""

import json
import os
import time

import numpy as np
import pytest

import birefnet_core as bc
from birefnet_core.images import read_image, to_bytes, write_image
from tests.checkpoints.conftest import FakeHub
from tests.comfyui.workflows import PHOTO, error_of, node, saved, segment

pytestmark = pytest.mark.comfyui

SMALL = {"size": "custom", "width": 64, "height": 64}


@pytest.fixture(scope="module")
def hub():
    fake = FakeHub()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def server(start_comfyui, hub, tmp_path_factory):
    environment = {
        "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path_factory.mktemp("cache")), "NO_PROXY": "*",
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    server = start_comfyui(**environment)
    server.environment = environment
    write_image(server.base / "input" / "example.png", read_image(PHOTO))
    return server


@pytest.fixture(scope="module")
def weights(small_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    bc.save_checkpoint(small_model, path)
    return path.read_bytes()


def workflow(model):
    return {**segment(model, **SMALL), **saved(["3", 0], "mask")}


def check_mask(server, model, outputs):
    expected = to_bytes(bc.Segmenter(model)(read_image(PHOTO)[None], 64)[0])
    (picture,) = server.pictures(outputs, "9")
    assert np.abs(picture[..., 0].astype(int) - expected).max() <= 1


def progress_of(server, prompt, client, until):
    """What the page's progress bar is told of node 2, up to a number of bytes."""
    told = []
    end = time.monotonic() + 60
    while time.monotonic() < end:
        message = client.recv()
        event = json.loads(message) if isinstance(message, str) else {}
        if event.get("type") == "progress" and event["data"]["node"] == "2":
            assert event["data"]["prompt_id"] == prompt
            told.append((event["data"]["value"], event["data"]["max"]))
            if told[-1][0] >= until:
                return told
    raise AssertionError(f"the download did not get to {until} bytes: {told}")


def labels(server):
    inputs = server.get("/object_info/BiRefNetLoadModel")["BiRefNetLoadModel"]["input"]["required"]
    return inputs["model"][1]["birefnet_labels"]


def test_a_download_shows_progress_and_can_be_cancelled(server, hub):
    websocket = pytest.importorskip("websocket")
    size = 60_000_000
    repo = hub.add("ZhengPeng7/BiRefNet_HR", {"model.safetensors": b"w" * size}, seconds=60)
    client = websocket.create_connection(f"{server.url.replace('http', 'ws')}/ws?clientId=tests", timeout=60)
    prompt = server.submit(workflow("BiRefNet_HR"), client="tests")
    told = progress_of(server, prompt, client, until=1)
    assert told[0][0] == 0 and 0 < told[-1][0] < size and {total for _, total in told} == {size}
    server.request("/interrupt", b"{}")
    start = time.monotonic()
    messages = dict(server.wait(prompt)["status"]["messages"])
    client.close()
    assert "execution_interrupted" in messages, messages
    assert time.monotonic() - start < 30  # one of the client's chunks; the rest would take longer
    assert not (server.base / "models" / "birefnet" / "BiRefNet_HR").exists()
    repo.seconds = 0
    assert not labels(server)["BiRefNet_HR"].startswith("✓")


def test_a_downloaded_checkpoint_is_marked_and_used(server, hub, weights, small_model):
    assert labels(server)["BiRefNet_lite"].startswith("BiRefNet_lite (")
    hub.add("ZhengPeng7/BiRefNet_lite", {"model.safetensors": weights})
    check_mask(server, small_model, server.run(workflow("BiRefNet_lite")))
    assert labels(server)["BiRefNet_lite"].startswith("✓ BiRefNet_lite (")
    assert (server.base / "models" / "birefnet" / "BiRefNet_lite" / "model.safetensors").read_bytes() == weights


def test_a_full_disk_is_told_and_the_next_run_works(server, hub, small_model):
    hub.add("ZhengPeng7/BiRefNet-portrait", announced=2**60)
    error = error_of(server, workflow("BiRefNet-portrait"))
    assert error["node_type"] == "BiRefNetLoadModel" and error["node_id"] == "2"
    assert "Not enough disk space at " in error["exception_message"]
    assert not (server.base / "models" / "birefnet" / "BiRefNet-portrait").exists()
    check_mask(server, small_model, server.run(workflow("BiRefNet_lite")))


def test_after_a_restart_without_network_what_was_downloaded_works(server, hub, small_model):
    hub.close()
    server.stop()
    server.start(server.environment)
    error = error_of(server, workflow("BiRefNet-matting"))
    assert error["node_type"] == "BiRefNetLoadModel"
    assert "ZhengPeng7/BiRefNet-matting" in error["exception_message"]
    assert "could not be reached" in error["exception_message"]
    assert labels(server)["BiRefNet_lite"].startswith("✓")
    check_mask(server, small_model, server.run(workflow("BiRefNet_lite")))


def test_a_missing_package_is_told_and_other_packs_work(server, tmp_path):
    (tmp_path / "timm.py").write_text("raise ModuleNotFoundError(\"No module named 'timm'\", name='timm')")
    server.stop()
    server.start({**server.environment, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert {"NoFrames", "BiRefNetSegment"} <= set(server.get("/object_info"))
    error = error_of(server, workflow("BiRefNet_lite"))
    assert error["node_type"] == "BiRefNetLoadModel"
    assert "'timm'" in error["exception_message"] and "pip install -r" in error["exception_message"]
    mask = {"1": node("SolidMask", value=0.5, width=32, height=32)}
    assert server.run({**mask, **saved(["1", 0], "mask")})
