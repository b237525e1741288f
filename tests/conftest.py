"""What all tests share: recorded values of the published network and the weights they were made with."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import signal
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parent / "fixtures"
MANIFESTS = sorted(path.stem for path in (FIXTURES / "manifests").glob("*.json"))
# The network of few operations that most tests take, which need one of whatever kind.
SMALLEST = {"backbone": "pvt_v2_b0", "reconstruction_block": "residual", "image_pyramid": "none"}

# Gains of the fill rule for convolution and linear weights: the first suffix that fits.
_GAINS = (
    ("offset_conv.weight", 0.8),
    ("modulator_conv.weight", 1.0),
    (".attn.sr.weight", 0.05),
    ("conv_in.weight", 1.4),
    ("regular_conv.weight", 1.4),
    ("global_avg_pool.1.weight", 1.4),
    ("dec_att.conv1.weight", 1.4),
    ("conv_out1.0.weight", 2.5),
    *[(f"patch_embed{k}.proj.weight", 0.05) for k in ("", 1, 2, 3, 4)],
    *[(f"gdt_convs_{k}.0.weight", 1.4) for k in range(10)],
)


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """Signals end what they are sent to: ``nohup`` and shells that run tests in the background have some ignored."""
    wanted = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    numbers = {getattr(signal, name): handler for name, handler in wanted.items() if hasattr(signal, name)}
    ignored = {number: handler for number, handler in numbers.items() if signal.getsignal(number) is signal.SIG_IGN}
    for number, handler in ignored.items():
        signal.signal(number, handler)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def fill_value(name: str, shape: list[int]) -> torch.Tensor:
    """The deterministic weight of one published name: a function of the name and the shape alone."""
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_mean":
        value = 0.1 * z
    elif last == "running_var":
        value = np.clip(np.exp(0.2 * z), 0.5, 2.0)
    elif last in ("relative_position_bias_table", "cls_token", "reg_token"):
        value = 0.5 * z
    elif last in ("gamma_1", "gamma_2"):
        value = 0.5 + 0.1 * z
    elif any(name.endswith(f"patch_embed{k}.norm.weight") for k in range(1, 5)):
        value = 0.1 * (1 + 0.1 * z)
    elif last == "weight" and len(shape) == 1:
        value = 1 + 0.1 * z
    elif len(shape) == 1:
        value = 0.05 * z + (6.0 if name == "decoder.conv_out1.0.bias" else 0.0)
    else:
        gain = next((gain for suffix, gain in _GAINS if name.endswith(suffix)), 1.0)
        value = z * (gain / np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def load_manifest(variant: str) -> SimpleNamespace:
    """Entries, counts and norms of a published network."""
    return SimpleNamespace(**json.loads((FIXTURES / "manifests" / f"{variant}.json").read_text()))


def filled_state_dict(variant: str, known: dict[tuple, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """A state dict under the published names, filled by the rule, without integer entries.

    Args:
        variant: Besides those that were published there is "smallest".
        known: The values by name and shape that other variants have in common with this one; takes its own.
    """
    if variant == "smallest":
        import birefnet_core as bc
        from birefnet_core.checkpoints import build, keymap

        config = bc.BiRefNetConfig(**SMALLEST)
        own = build.empty_network(config).state_dict()
        names = keymap.to_published(own, config)
        state = {names[name]: fill_value(names[name], list(own[name].shape)) for name in own if own[name].ndim}
        state["decoder.conv_out1.0.bias"] -= 5.5  # the rule's is for published networks: here no mask would vary
        state["decoder.conv_out1.0.weight"] *= 2
        return state
    known, state = {} if known is None else known, {}
    for name, shape, dtype in load_manifest(variant).state_dict:
        if dtype == "float32":
            key = name, *shape
            state[name] = known[key] if key in known else known.setdefault(key, fill_value(name, shape))
    return state


@pytest.fixture(scope="session")
def reference():
    """Opens a recorded .npz: attribute access to its arrays, ``meta`` parsed."""

    def load(name: str) -> SimpleNamespace:
        with np.load(FIXTURES / "reference" / f"{name}.npz") as arrays:
            values = {key: arrays[key] for key in arrays.files if key != "meta"}
            meta = json.loads(str(arrays["meta"])) if "meta" in arrays.files else {}
        return SimpleNamespace(meta=meta, arrays=values, **{k: v for k, v in values.items() if k.isidentifier()})

    return load


@pytest.fixture(scope="session")
def manifest():
    return load_manifest


@pytest.fixture(scope="session")
def filled():
    """Filled state dicts by variant, made once."""
    known: dict[tuple, torch.Tensor] = {}
    made = functools.cache(lambda variant: filled_state_dict(variant, known))
    return lambda variant: dict(made(variant))


@pytest.fixture(scope="session")
def model_file(filled, tmp_path_factory):
    """The smallest network as a file, as if trained at 64 x 64."""
    import birefnet_core as bc

    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return bc.save_checkpoint(bc.model_from_state_dict(filled("smallest")), path, training_size=(64, 64))


def pytest_configure(config):
    """Refuses connections to other machines: the tests take nothing from a network."""

    def refuse(event: str, arguments: tuple) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            host = str(arguments[1][0])
            if not (host.startswith("127.") or host in ("localhost", "::1", "0.0.0.0")):
                raise RuntimeError(f"a test connects to {host}: tests may use this machine only")

    sys.addaudithook(refuse)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Has the garbage collector pass over libraries and tests, which stay: it would visit them all again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        with contextlib.suppress(ImportError):
            import hypothesis  # noqa: F401 - asks the collector for what refers to its objects, when it is imported
        gc.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter):
    """Says what was not run, and why."""
    stats = terminalreporter.stats
    reasons = Counter(_reason(report) for report in stats.get("skipped", ()))
    left_out = len(stats.get("deselected", ()))
    if left_out:
        chosen = terminalreporter.config.option.markexpr
        reasons[f"not chosen by -m {chosen!r}; make test-slow runs the slow ones"] = left_out
    if reasons:
        terminalreporter.section("not run")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5d}  {reason}")


def _reason(report) -> str:
    """Of a skipped test, without the place in the code."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_generate_tests(metafunc):
    if "manifest_name" in metafunc.fixturenames:
        metafunc.parametrize("manifest_name", MANIFESTS)


def api_format(workflow: dict) -> dict:
    """A workflow as ComfyUI's page saves it -> the form its server runs."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":  # the page's own
            continue
        values = iter(node.get("widgets_values") or [])
        inputs = {}
        for slot in node.get("inputs", []):
            if "widget" in slot:
                inputs[slot["name"]] = next(values)
                if slot["name"] == "seed":
                    next(values)  # what to do with it after the run
            if slot.get("link") is not None:
                inputs[slot["name"]] = sources[slot["link"]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


@pytest.fixture(scope="session")
def to_api():
    return api_format
