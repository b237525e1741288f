"""Variables of the environment with values at which packages, or torchrun's readers, would raise."""

import os
import subprocess
import sys

import pytest

from birefnet_core.checkpoints.hub_client import hub_client
from birefnet_core.cli.main import main
from birefnet_core.errors import CheckpointError, ConfigError
from birefnet_core.torchrun import ProcessStore, TorchrunProcess, current_process

VARIABLES = [
    ("HF_HUB_ETAG_TIMEOUT", "abc"),
    ("HF_HUB_DOWNLOAD_TIMEOUT", ""),
    ("HF_HUB_DOWNLOAD_TIMEOUT", "10.5"),
    ("TQDM_MININTERVAL", "abc"),
    ("TQDM_NCOLS", "wide"),
]


@pytest.fixture
def client_not_imported(monkeypatch):
    """As in a process that has not imported the client yet."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("huggingface_hub", "tqdm")]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("huggingface_hub", "tqdm")]:
        sys.modules.pop(name)


@pytest.mark.parametrize(("name", "value"), VARIABLES)
@pytest.mark.parametrize("again", [1, 2])
def test_a_value_that_ends_the_clients_import_is_named(monkeypatch, client_not_imported, name, value, again):
    monkeypatch.setenv("HF_HUB_USER_AGENT_ORIGIN", "another")
    monkeypatch.setenv(name, value)
    for _ in range(again):
        with pytest.raises(CheckpointError) as error:
            hub_client("utils.tqdm")
    assert f"{name}={value!r} (" in str(error.value)
    assert "HF_HUB_USER_AGENT_ORIGIN" not in str(error.value)
    assert "Expected a number" in str(error.value)


@pytest.mark.parametrize("value", ["10", " 10 ", "0"])
def test_numbers_are_taken(monkeypatch, client_not_imported, value):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", value)
    assert hub_client("constants").HF_HUB_ETAG_TIMEOUT == 10


@pytest.mark.parametrize("arguments", [["checkpoints"], ["segment", "a.png", "-o", "masks", "--model", "demo"]])
def test_commands_say_a_value_that_ends_the_clients_import(capsys, monkeypatch, client_not_imported, arguments):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "abc")
    assert main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "HF_HUB_ETAG_TIMEOUT='abc'" in error


def test_a_process_of_its_own_ends_with_a_sentence():
    command = [sys.executable, "-m", "birefnet_core", "segment", "--help"]
    environment = {**os.environ, "HF_HUB_DOWNLOAD_TIMEOUT": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "HF_HUB_DOWNLOAD_TIMEOUT=''" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("rank", "world_size", "local_rank"),
    [("abc", "2", "0"), ("", "", "0"), ("2", "2", "0"), ("-1", "2", "0"), ("0", "0", "0"), ("0", "1", "-1")],
)
def test_what_torchrun_does_not_set_is_refused(monkeypatch, rank, world_size, local_rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    with pytest.raises(ConfigError, match=f"RANK={rank} WORLD_SIZE={world_size} LOCAL_RANK={local_rank}"):
        current_process()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (1, 2, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 0)),
        ({"RANK": "abc"}, (0, 1, 0)),
        ({"WORLD_SIZE": "2"}, (0, 1, 0)),
    ],
)
def test_what_torchrun_sets_is_taken(monkeypatch, variables, expected):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert current_process() == TorchrunProcess(*expected)


@pytest.mark.parametrize("port", [None, "none", "99999999"])
def test_an_address_without_a_port_is_refused(monkeypatch, port):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    if port is not None:
        monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT"):
        ProcessStore()
