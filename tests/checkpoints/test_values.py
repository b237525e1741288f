"""Weights that no mask can be computed with are refused, and named, before one is made."""

import copy
import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import birefnet_core as bc
from birefnet_core.checkpoints import adapter as adapters
from birefnet_core.checkpoints import copying, values

from ..conftest import SMALLEST

WEIGHT, BIAS = "bb.patch_embed1.proj.weight", "decoder.conv_out1.0.bias"


@pytest.fixture(scope="module")
def weights(filled):
    return filled("smallest")


@pytest.fixture
def state(weights):
    return dict(weights)


def spoiled(value: float, at: int | None = None):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[slice(None) if at is None else at] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("dtype", "network", "value"),
    [
        pytest.param(dtype, network, float(value), marks=() if chosen else pytest.mark.slow)
        for dtype, network in (
            (torch.float32, torch.float32),
            (torch.float32, torch.float16),
            (torch.float16, torch.float16),
            (torch.bfloat16, torch.bfloat16),
            (torch.float64, torch.float16),
        )
        for value in ("nan", "inf", "-inf")
        for chosen in [value == "nan" or dtype == network != torch.bfloat16 or (dtype.itemsize == 8 and value == "inf")]
    ],
)
def test_weights_that_are_not_finite_are_named(state, tmp_path, dtype, network, value):
    state[WEIGHT] = spoiled(value, at=7)(state[WEIGHT]).to(dtype)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(bc.CheckpointError, match=rf"x\.safetensors: 1 weights are NaN or infinite \({WEIGHT}\)"):
        bc.load_model(tmp_path / "x.safetensors", dtype=network)


def is_finite(value):
    return math.isfinite(values.largest_magnitude(value))


def test_infinities_that_cancel_out_are_noticed():
    assert not is_finite(torch.tensor([float("inf"), float("-inf")]))
    assert is_finite(torch.full((9,), 3e38))  # whose sum is not
    assert is_finite(torch.full((9,), 60000.0, dtype=torch.float16))
    assert not is_finite(torch.tensor([1e300], dtype=torch.float64))  # not in float32
    assert not is_finite(torch.tensor([float("nan")]).to(torch.float8_e4m3fn))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_number_is_known_to_be_finite_or_not(dtype):
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    finite = numbers[numbers.isfinite()]
    assert is_finite(finite.repeat(9)) and is_finite(finite[:0]) and is_finite(finite[7])
    assert is_finite(finite.view(2, -1).t())
    padding = torch.zeros(2**17 + 5, dtype=dtype)
    for number in [*numbers[~numbers.isfinite()][::301], torch.tensor(float("inf")), torch.tensor(-float("inf"))]:
        assert not is_finite(torch.cat((padding, number.to(dtype).view(1))))


class Elsewhere(torch.Tensor):
    """Stands for a tensor of another device, whose memory NumPy cannot read."""

    is_cpu = False

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_numbers_of_other_devices_and_negated_views_are_checked(dtype):
    for number, finite in ((1.0, True), (float("nan"), False)):
        weight = torch.tensor([2.0, number], dtype=dtype)
        assert is_finite(weight.as_subclass(Elsewhere)) is finite
        assert is_finite(torch._neg_view(weight)) is finite
        assert is_finite(weight.clone().requires_grad_()) is finite
        assert is_finite(weight.expand(3, 2)) is finite


@pytest.mark.parametrize("source", ["state dict", "pth", "old pth", "module.", "own names"])
def test_nan_is_noticed_wherever_weights_come_from(state, tmp_path, source):
    state[BIAS] = spoiled(float("nan"))(state[BIAS])
    if source == "own names":
        good = bc.model_from_state_dict({**state, BIAS: torch.zeros_like(state[BIAS])}).state_dict()
        state = {**good, "reconstruction.head.bias": state[BIAS]}
    prefixed = {("module." if source == "module." else "") + name: value for name, value in state.items()}
    with pytest.raises(bc.CheckpointError, match="1 weights are NaN or infinite"):
        if source in ("state dict", "own names"):
            bc.model_from_state_dict(state)
        else:
            torch.save(prefixed, tmp_path / "x.pth", _use_new_zipfile_serialization=source != "old pth")
            bc.load_model(tmp_path / "x.pth")


def test_damage_is_named_before_what_does_not_fit_into_float16(state):
    state[WEIGHT] = spoiled(float("nan"))(state[WEIGHT])
    other = next(name for name, value in state.items() if value.is_floating_point() and name != WEIGHT)
    state[other] = state[other] + 1e30
    with pytest.raises(bc.CheckpointError, match="1 weights are NaN or infinite"):
        bc.model_from_state_dict(state, dtype=torch.float16)


def test_torch_makes_its_threads_before_weights_are_copied_in_some(state, monkeypatch):
    calls, pool = [], copying.ThreadPoolExecutor
    monkeypatch.setattr(copying, "prepare_threads", lambda: calls.append("prepared"))
    monkeypatch.setattr(copying, "ThreadPoolExecutor", lambda count: calls.append("started") or pool(count))
    bc.model_from_state_dict(state)
    assert calls == ["prepared", "started"]


def test_all_weights_that_are_not_finite_are_counted(state):
    for name in state:
        if state[name].is_floating_point():
            state[name] = spoiled(float("nan"))(state[name])
    with pytest.raises(bc.CheckpointError, match=r"\d{3} weights are NaN or infinite \(.* and \d{3} more\)"):
        bc.model_from_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("network", [None, torch.float16])
def test_integers_and_booleans_are_refused(state, dtype, network):
    state[WEIGHT] = (state[WEIGHT] * 100).to(dtype)
    with pytest.raises(bc.CheckpointError, match=rf"1 weights are not floating point \({WEIGHT} \({dtype}\)\)"):
        bc.model_from_state_dict(state, dtype=network)


@pytest.mark.parametrize("network", [None, torch.float32, torch.float16, torch.bfloat16])
def test_files_of_integers_alone_are_refused(state, network):
    with pytest.raises(bc.CheckpointError, match=r"\d{3} weights are not floating point"):
        bc.model_from_state_dict({n: (v * 100).to(torch.int8) for n, v in state.items()}, dtype=network)


@pytest.mark.parametrize("network", [torch.float32, torch.float16])
def test_negative_variances_are_refused(state, network):
    names = [name for name in state if name.endswith("running_var")]
    state[names[0]] = spoiled(-1e-3, at=0)(state[names[0]])
    with pytest.raises(bc.CheckpointError, match=rf"1 weights are negative variances \({names[0]}\)"):
        bc.model_from_state_dict(state, dtype=network)


def test_positions_of_a_window_are_those_of_the_architecture(filled):
    state = bc.model_from_state_dict(filled("swin_v1_t")).state_dict()
    name = next(name for name in state if name.endswith("relative_position_index"))
    state[name] = state[name].flip(0)
    with pytest.raises(bc.CheckpointError, match="other positions than a window has"):
        bc.model_from_state_dict(state)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
@pytest.mark.parametrize(
    ("network", "names"),
    [(None, WEIGHT), (None, "all"), (torch.float32, "all"), (torch.float16, "all"), (torch.bfloat16, "all")],
)
def test_float8_is_refused_in_every_precision(state, dtype, network, names):
    """It has no scale and few bits: masks would be others than those of the network, by .05 of S with float8_e5m2."""
    rounded = [n for n, v in state.items() if v.is_floating_point() and names in ("all", n)]
    state.update({n: state[n].to(getattr(torch, dtype)) for n in rounded})
    with pytest.raises(bc.CheckpointError, match=rf"{len(rounded)} weights are float8, which keeps 2 or 3 bits"):
        bc.model_from_state_dict(state, dtype=network)


@pytest.mark.parametrize("dtype", ["float8_e8m0fnu", "float4_e2m1fn_x2"])
def test_parts_of_quantized_weights_are_refused(state, tmp_path, dtype):
    """Scales without a sign, and two numbers in a byte."""
    if not hasattr(torch, dtype):
        pytest.skip("torch does not have this type")
    state[WEIGHT] = torch.ones(state[WEIGHT].shape, dtype=torch.uint8).view(getattr(torch, dtype))
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match=r"1 weights are float8|never executed"):
        bc.load_model(tmp_path / "x.pth")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_files_of_float8_are_refused(state, tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    rounded = {n: v.to(torch.float8_e4m3fn) if v.is_floating_point() else v for n, v in state.items()}
    (save_file if ending == "safetensors" else torch.save)(rounded, path)
    with pytest.raises(bc.CheckpointError, match=rf"x\.{ending}: [0-9]+ weights are float8"):
        bc.load_model(path)


ODD = {
    "meta": (lambda t: t.to("meta"), "meta"),
    "sparse": (lambda t: t.to_sparse(), "sparse_coo"),
    "rows": (lambda t: t.flatten(1).to_sparse_csr(), "sparse_csr"),
    "quantized": (lambda t: torch.quantize_per_tensor(t.contiguous(), 0.1, 0, torch.qint8), "quantized"),
    "nested": (lambda t: torch.nested.nested_tensor([t[:1].flatten(), t.flatten()]), "nested"),
    "complex": (lambda t: t.to(torch.complex64), "complex"),
    "stride 0": (lambda t: torch.zeros(1).expand(t.shape), "values over 4 bytes"),
    "stride 0, huge": (lambda t: torch.zeros(1).expand(10**6, 10**6), "1000000 x 1000000 values over 4 bytes"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", [WEIGHT, "hello"])
def test_tensors_that_are_not_plain_are_named(state, tmp_path, kind, name):
    make, words = ODD[kind]
    try:
        odd = make(state.get(name, torch.ones(4, 4)))
    except (AttributeError, NotImplementedError, RuntimeError):
        pytest.skip("torch does not make these any more")
    torch.save({**state, name: odd}, tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match=f"tensors are not plain ones: {name} .*{words}|never executed"):
        bc.load_model(tmp_path / "x.pth")


def shapes_of(tensor):
    return [tensor.flatten(), tensor.permute(*range(tensor.ndim - 1, -1, -1)), torch.tensor(1.0), torch.zeros(0)]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(
    "name",
    [WEIGHT, "squeeze_module.0.conv_in.weight", "decoder.lateral_block4.conv.weight", "decoder.ipt_blk5.conv1.weight"],
)
def test_shapes_of_any_kind_are_refused(filled, name, index):
    state = filled("pvt_v2_b0")  # with an image pyramid
    state[name] = shapes_of(state[name])[index].contiguous()
    with pytest.raises(bc.CheckpointError):
        bc.model_from_state_dict(state)


@pytest.mark.parametrize("shape", [(), (3,), (2**40, 0), (2**31, 0), (10**6, 4)])
def test_classifiers_of_any_shape_are_refused(state, shape):
    state["cls_head.0.weight"] = torch.zeros(shape)
    with pytest.raises((bc.CheckpointError, bc.ConfigError)):
        bc.model_from_state_dict(state)


# Metadata


def with_metadata(state, path, config=None, **metadata):
    own = bc.BiRefNetConfig(**SMALLEST).to_dict() | (config or {})
    save_file(state, path, {"birefnet_config": json.dumps(own), "training_size": "64x64", **metadata})
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 219}, {"num_classes": 10**9}, {"num_classes": 10**19}, {"num_classes": -1},
        {"backbone": "dino_v3_7b"}, {"backbone": "swin_v1_l"}, {"backbone": ["swin_v1_l"]}, {"backbone": None},
        {"patch_order": {"a": 1}}, {"context_fusion": [3]}, {"batch_norm": False}, {"unknown": 1},
    ],
)  # fmt: skip
def test_metadata_of_another_network_are_refused(state, tmp_path, change):
    with pytest.raises(bc.CheckpointError, match=r"x\.safetensors: "):
        bc.load_model(with_metadata(state, tmp_path / "x.safetensors", change))


@pytest.mark.parametrize("text", ["", "null", "[1]", "3", '"x"', "[" * 100_000, '{"a":' * 100_000, "{}}", "NaN"])
def test_configurations_that_are_none_are_refused(state, tmp_path, text):
    with pytest.raises(bc.CheckpointError, match="metadata cannot be read"):
        bc.load_model(with_metadata(state, tmp_path / "x.safetensors", birefnet_config=text))


@pytest.mark.parametrize("size", ["", "64", "0x0", "-64x-64", "axb", "64x64x64", "1000000x1000000", "9" * 5000 + "x64"])
def test_training_sizes_that_are_none_are_refused(state, tmp_path, size):
    with pytest.raises(bc.CheckpointError, match=r"its metadata (cannot be read|say it was trained at)"):
        bc.load_model(with_metadata(state, tmp_path / "x.safetensors", training_size=size))


# Adapters

UP, DOWN = "decoder.conv_out1.0.weight.lora_up", "decoder.conv_out1.0.weight.lora_down"


@pytest.fixture(scope="module")
def network(weights):
    return bc.model_from_state_dict(weights)


@pytest.fixture
def model(network):
    return copy.deepcopy(network)


def save_adapter(path, model, up=None, down=None, rank=2, **metadata):
    weight = dict(model.named_parameters())["reconstruction.head.weight"]
    outputs, inputs = weight.shape[0], weight[0].numel()
    tensors = {
        UP: torch.ones(outputs, rank) if up is None else up,
        DOWN: torch.ones(rank, inputs) if down is None else down,
    }
    own = {"birefnet_adapter": "birefnet_core/1", "birefnet_config": json.dumps(model.config.to_dict()), "scale": "1"}
    save_file(tensors, path, {**own, **metadata})
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"up": torch.full((1, 2), float("nan"))}, rf"NaN or infinite \({UP}\)"),
        ({"down": torch.full((2, 48), float("inf"))}, "NaN or infinite"),
        ({"up": torch.ones(1, 2, dtype=torch.int32)}, "not floating point"),
        ({"up": torch.ones(1, 2, dtype=torch.bool)}, "not floating point"),
        ({"down": torch.ones(3, 48)}, "expected matrices O, r and r, I"),
        ({"up": torch.ones(1)}, "expected matrices"),
        ({"up": torch.tensor(1.0)}, "expected matrices"),
        ({"up": torch.ones(1, 2, 1)}, "expected matrices"),
        ({"rank": 0}, "expected matrices"),
        ({"up": torch.ones(1, 0)}, "expected matrices"),
        ({"scale": "nan"}, "scale is nan"),
        ({"scale": "inf"}, "scale is inf"),
        ({"scale": "x"}, "cannot be read"),
        ({"birefnet_config": "[" * 100_000}, "cannot be read"),
        ({"birefnet_config": "[]"}, "cannot be read"),
    ],
)
def test_adapters_that_spoil_the_weights_are_refused(model, tmp_path, change, words):
    path = save_adapter(tmp_path / "a.safetensors", model, **change)
    with pytest.raises(bc.CheckpointError, match=rf"a\.safetensors: .*{words}"):
        adapters.read_adapter(path)


def test_adapters_that_are_too_much_for_the_precision_change_nothing(model, tmp_path):
    path = save_adapter(tmp_path / "a.safetensors", model, scale="1e5")
    model.half()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(bc.CheckpointError, match=r"makes 1 weights NaN or infinite \(reconstruction\.head\.weight\)"):
        bc.merge_adapter(model, path)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(bc.CheckpointError, match="at strength nan"):
        bc.merge_adapter(model, path, float("nan"))


@pytest.mark.parametrize(
    "name", ["decoder.ipt_blk1.conv1.weight.lora_down", "x.lora_up", "hello", "decoder.conv_out1.0.bias"]
)
def test_adapters_of_which_a_part_would_be_left_out_are_refused(model, tmp_path, name):
    path = save_adapter(tmp_path / "a.safetensors", model)
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file({**tensors, name: torch.ones(2, 2)}, path, metadata)
    with pytest.raises(
        bc.CheckpointError, match=r"the adapter (cannot be read|changes weights that no such network has)"
    ):
        adapters.read_adapter(path)


@pytest.mark.parametrize("backbone", ["pvt_v2_b1", "pvt_v2_b2", "swin_v1_t"])
def test_adapters_of_another_backbone_are_refused_even_where_their_weights_are_there(model, tmp_path, backbone):
    config = json.dumps(model.config.replace(backbone=backbone).to_dict())
    path = save_adapter(tmp_path / "a.safetensors", model, birefnet_config=config)
    with pytest.raises(bc.CheckpointError, match=f"belongs to a {backbone} network and this is pvt_v2_b0"):
        bc.merge_adapter(model, path)


def test_networks_and_adapters_in_each_others_place_are_named(model, tmp_path):
    network = bc.save_checkpoint(model, tmp_path / "m.safetensors")
    adapter = save_adapter(tmp_path / "a.safetensors", model)
    with pytest.raises(bc.CheckpointError, match="this is a low-rank adapter, not a network"):
        bc.load_model(adapter)
    with pytest.raises(bc.CheckpointError, match=r"not an adapter .* whole networks are loaded without adapter="):
        adapters.read_adapter(network)
    save_file({"unet.lora_A.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(bc.CheckpointError, match="a LoRA of another program"):
        adapters.read_adapter(tmp_path / "other.safetensors")
    save_file({UP: torch.ones(2, 2)}, tmp_path / "bare.safetensors")
    with pytest.raises(bc.CheckpointError, match="a low-rank adapter, to be given as adapter"):
        bc.load_model(tmp_path / "bare.safetensors")
