"""Files that torch saved, damaged, hostile and wrapped: a sentence, or the right weights."""

import collections
import io
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import pickled
from birefnet_core.checkpoints.io import read_file
from birefnet_core.checkpoints.pickled import find_weights, load_pickle

WEIGHTS = {"bb.norm0.weight": torch.arange(300.0).view(20, 15), "decoder.conv_out1.0.bias": torch.ones(5)}


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def assert_same(found, expected=WEIGHTS):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def packed_anew(content: bytes, method=zipfile.ZIP_STORED, change=lambda name, data: data, extra=()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w", method) as target:
        for entry in source.infolist():
            data = change(entry.filename, source.read(entry))
            if data is not None:
                target.writestr(entry.filename, data)
        for name, data in extra:
            target.writestr(name, data)
    return buffer.getvalue()


# Damage


@pytest.mark.parametrize(
    ("hidden", "words"),
    [
        ("PytorchStreamReader failed reading file data/0", r"corrupted \(PytorchStreamReader failed"),
        ("can't allocate memory: you tried to allocate 96 bytes.", r"too little memory .* \(can't allocate memory"),
    ],
)
def test_damage_and_too_little_memory_are_told_where_torch_calls_them_refusals(tmp_path, monkeypatch, hidden, words):
    """As torch 2.4 does with every RuntimeError."""

    def load(*arguments, **options):
        try:
            raise RuntimeError(hidden)
        except RuntimeError as error:
            message = f"Weights only load failed. Re-running `torch.load` will likely succeed. {error}"
            raise pickle.UnpicklingError(message) from None

    monkeypatch.setattr(torch, "load", load)
    torch.save(WEIGHTS, tmp_path / "x.pth")
    with pytest.raises(bc.BiRefNetError, match=words):
        read_file(tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("old_format", [False, True])
def test_whatever_the_damage_it_is_a_checkpoint_error(tmp_path, old_format):
    """Cut off, bits flipped, bytes inserted and removed, in both formats of torch."""
    whole = saved(WEIGHTS, _use_new_zipfile_serialization=not old_format)
    rng, path = random.Random(0), tmp_path / "x.pth"
    damaged = [whole[:length] for length in range(0, len(whole), 61)]
    for _ in range(150):
        content, at = bytearray(whole), rng.randrange(min(len(whole), 900))
        for _ in range(rng.choice((1, 2, 8))):
            content[rng.randrange(min(len(whole), 900))] ^= 1 << rng.randrange(8)
        damaged += [bytes(content), whole[:at] + b"\xff" + whole[at:], whole[:at] + whole[at + 1 :]]
    for content in damaged:
        path.write_bytes(content)
        try:
            found = read_file(path).tensors
        except bc.CheckpointError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert old_format or all(torch.equal(found[n], v) for n, v in WEIGHTS.items() if n in found)


def test_every_flipped_bit_of_a_zip_is_noticed(tmp_path):
    whole, path, rng = saved(WEIGHTS), tmp_path / "x.pth", random.Random(1)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = archive.infolist()
    for entry in entries:
        if not entry.file_size:
            continue
        name, extra = (int.from_bytes(whole[entry.header_offset + at :][:2], "little") for at in (26, 28))
        start = entry.header_offset + 30 + name + extra
        content = bytearray(whole)
        content[start + rng.randrange(entry.file_size)] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with pytest.raises(bc.CheckpointError, match=r"truncated or corrupted|never executed"):
            read_file(path)


@pytest.mark.parametrize("front", ["itself", "another", "bytes"])
def test_archives_behind_something_else_are_refused(tmp_path, front):
    """torch reads the first of two archives, by the directory of the last: their checksums are those of the last."""
    whole = saved(WEIGHTS)
    one = np.float32(1).tobytes() * 5  # of the bias
    damaged = whole.replace(one, one[:-4] + np.float32(2).tobytes())
    assert damaged != whole
    before = {
        "itself": damaged,
        "another": saved({name: 2 * value for name, value in WEIGHTS.items()}),
        "bytes": b"PK\3\4",
    }
    (tmp_path / "x.pth").write_bytes(before[front] + whole)
    words = rf"x\.pth: {len(before[front])} bytes stand before its archive, .*download it again"
    with pytest.raises(bc.CheckpointError, match=words):
        read_file(tmp_path / "x.pth")


def test_what_a_damaged_name_makes_of_the_message_is_short(tmp_path):
    whole = bytearray(saved({"bb.norm0.weight": torch.ones(5000)}))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    whole[largest.header_offset + 27] ^= 0x20  # of the length of the name
    (tmp_path / "x.pth").write_bytes(whole)
    with pytest.raises(bc.CheckpointError, match="corrupted") as error:
        read_file(tmp_path / "x.pth")
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_archives_are_refused(tmp_path, method):
    (tmp_path / "x.pth").write_bytes(packed_anew(saved(WEIGHTS), method))
    with pytest.raises(bc.CheckpointError, match=r"compressed, as by an archiver.*torch\.save"):
        read_file(tmp_path / "x.pth")


def test_archives_packed_anew_without_compression_are_read(tmp_path):
    (tmp_path / "x.pth").write_bytes(packed_anew(saved(WEIGHTS)))
    assert_same(read_file(tmp_path / "x.pth").tensors)


@pytest.mark.parametrize("mmap", [True, False])
def test_archives_without_checksums_are_read(tmp_path, mmap):
    """As torch writes them after ``torch.serialization.set_crc32_options(False)``: all are 0."""
    content = saved(WEIGHTS)
    for entry in zipfile.ZipFile(io.BytesIO(content)).infolist():
        content = content.replace(entry.CRC.to_bytes(4, "little"), bytes(4))
    (tmp_path / "x.pth").write_bytes(content)
    assert {entry.CRC for entry in zipfile.ZipFile(tmp_path / "x.pth").infolist()} == {0}
    assert_same(read_file(tmp_path / "x.pth").tensors if mmap else load_pickle(tmp_path / "x.pth"))


READS_BYTES = "_codecs.encode" in torch._weights_only_unpickler._get_allowed_globals()
NO_BYTES = pytest.mark.skipif(not READS_BYTES, reason="torch 2.4 reads no bytes")


@pytest.mark.parametrize(
    "key", ["x" * 3_000_000, ("a\n" * 1_000_000, 1), pytest.param(b"y" * 3_000_000, marks=NO_BYTES)]
)
def test_messages_show_no_more_of_a_dictionary_than_fits(tmp_path, key):
    torch.save({key: 1}, tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match=r"a dictionary with .* names with tensors expected") as error:
        read_file(tmp_path / "x.pth")
    assert len(str(error.value)) < 1000 and "\n" not in str(error.value)


def test_bombs_are_refused_before_they_are_inflated(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as file:
        for _ in range(20):
            file.write(bytes(2**20))
    with pytest.raises(bc.CheckpointError, match="compressed"):
        read_file(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, data: data[: len(data) // 2] if "/data/" in name else data, "corrupted"),
        (lambda name, data: data + data if "/data/" in name else data, "larger or smaller than their data"),
        (lambda name, data: None if "/data/" in name else data, "corrupted"),
        (lambda name, data: None if name.endswith("data.pkl") else data, "without weights of torch"),
        (lambda name, data: b"hello" if name.endswith("data.pkl") else data, "never executed|corrupted"),
    ],
)
def test_archives_whose_parts_do_not_fit_are_refused(tmp_path, change, words):
    (tmp_path / "x.pth").write_bytes(packed_anew(saved(WEIGHTS), change=change))
    with pytest.raises(bc.CheckpointError, match=words):
        read_file(tmp_path / "x.pth")


def test_programs_of_torchscript_are_named(tmp_path):
    (tmp_path / "x.pth").write_bytes(packed_anew(saved(WEIGHTS), extra=[("archive/constants.pkl", b"x")]))
    with pytest.raises(bc.CheckpointError, match=r"TorchScript.*state_dict"):
        read_file(tmp_path / "x.pth")


HOSTILE = {
    "empty stack": b"\x80\x02R.",
    "deep tuples": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "long text": b"\x80\x02X\xff\xff\xff\x7f.",
    "long bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
    "long number": b"\x80\x02\x8b\x7f\xff\xff\xff.",
    "text of a number": b"\x80\x02I" + b"9" * 100_000 + b"\n.",
    "far memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "call": b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00exittR.",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path, name):
    (tmp_path / "x.pth").write_bytes(HOSTILE[name])
    with pytest.raises(bc.CheckpointError):
        read_file(tmp_path / "x.pth")


def archive_of(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", [64, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("objects", [b"]", b"}", b")", b"K\x01", b"G" + bytes(8), b"]q\x00"])
@pytest.mark.parametrize("pack", [archive_of, bytes])
def test_pickles_of_very_many_objects_are_refused_before_they_are_made(tmp_path, monkeypatch, objects, pack, part):
    """63 MB of lists took 5.6 GB and a minute; most are a part of that, and so are the limits."""
    for limit in ("_MOST_PICKLE", "_MOST_OPERATIONS"):
        monkeypatch.setattr(pickled, limit, getattr(pickled, limit) // part)
    (tmp_path / "x.pth").write_bytes(pack(b"\x80\x02](" + objects * (9 * 2**20 // part // len(objects)) + b"e."))
    with pytest.raises(bc.CheckpointError, match=r"larger than .* any weights|more objects than any weights|corrupted"):
        read_file(tmp_path / "x.pth")


@pytest.mark.parametrize("pack", [archive_of, bytes])
def test_the_limits_of_pickles_are_far_from_what_takes_a_minute(tmp_path, pack):
    (tmp_path / "x.pth").write_bytes(pack(b"\x80\x02](" + b"]" * 9 * 2**20 + b"e."))
    with pytest.raises(bc.CheckpointError, match=r"larger than .* any weights|more objects than any weights"):
        read_file(tmp_path / "x.pth")


def test_numpy_arrays_in_place_of_tensors_are_told(tmp_path):
    torch.save({"bb.weight": np.zeros(9 * 2**20, np.uint8)}, tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match=r"pickle of 9 MiB .* NumPy arrays"):
        read_file(tmp_path / "x.pth")


class Options:
    """Stands for what training scripts keep beside the weights."""


@pytest.mark.parametrize("old_format", [False, True])
def test_objects_beside_the_weights_are_named(tmp_path, old_format):
    content = {"state_dict": WEIGHTS, "args": Options()}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(bc.CheckpointError, match=r"Python objects such as \S*Options, which are never executed"):
        read_file(tmp_path / "x.pth")


def test_pickled_arrays_are_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps({name: value.numpy() for name, value in WEIGHTS.items()}))
    with pytest.raises(bc.CheckpointError, match="never executed"):
        read_file(tmp_path / "x.pth")


@pytest.mark.skipif(os.name == "nt", reason="no pipes among files")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match="no such file"):
        read_file(tmp_path / "x.pth")


def test_other_states_are_checked_too(tmp_path):
    """last.pt of a training, which is no state dict."""
    path = tmp_path / "last.pt"
    torch.save({"format": 1, "optimizer": {"state": [torch.ones(1000)]}}, path)
    assert torch.equal(load_pickle(path)["optimizer"]["state"][0], torch.ones(1000))
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(bc.CheckpointError, match="CRC"):
        load_pickle(path)


# What training code wraps around the weights


@pytest.mark.parametrize(
    "content",
    [
        {"model_ema": WEIGHTS, "epoch": 3},
        {"ema_state_dict": WEIGHTS},
        {"module": WEIGHTS, "dp_world_size": 2, "lr_scheduler": None},
        {"epoch": 3, "my_network": WEIGHTS},
        {"steps": torch.tensor(5), "networks": {"generator": WEIGHTS, "loss": {"vgg.weight": torch.ones(2)}}},
        {"params": {"lr": torch.tensor(0.1)}, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "nn": WEIGHTS},
        collections.OrderedDict(WEIGHTS),
    ],
)
def test_weights_are_found_wherever_training_code_puts_them(content):
    assert_same(find_weights(content))


def test_raw_weights_come_before_their_average_and_a_warning_says_so(caplog):
    other = {name: value + 1 for name, value in WEIGHTS.items()}
    for content in (
        {"ema": other, "model": WEIGHTS},
        {"state_dict": WEIGHTS, "callbacks": {"EMA": {"weights": other}}},
    ):
        caplog.clear()
        assert_same(find_weights(content))
        assert "2 sets of weights of a BiRefNet" in caplog.text


@pytest.mark.parametrize(
    "beside",
    [{"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, {"loss": {"vgg.weight": torch.ones(2)}}, {"epoch": 3}],
)
def test_other_things_beside_one_network_are_no_reason_to_warn(beside, caplog):
    assert_same(find_weights({"model": WEIGHTS, **beside}))
    assert_same(find_weights({"a": WEIGHTS, "b": WEIGHTS}))
    assert not caplog.text


def test_containers_within_themselves_end():
    loop = {"a": 1}
    loop |= {str(i): loop for i in range(50)}
    assert find_weights(loop) is None
    deep = WEIGHTS
    for _ in range(5000):
        deep = {"model": deep}
    assert find_weights(deep) is None


# Shards


def shards(folder: Path, count: int, save) -> list[Path]:
    names = [f"model-{i + 1:05}-of-{count:05}" for i in range(count)]
    for i, name in enumerate(names):
        save({n: v for j, (n, v) in enumerate(WEIGHTS.items()) if j % count == i}, folder / name)
    return sorted(folder.iterdir())


def save_pickled(tensors, path):
    torch.save(tensors, path.with_suffix(".bin"))


def save_safetensors(tensors, path):
    from safetensors.torch import save_file

    save_file(tensors, path.with_suffix(".safetensors"))


@pytest.mark.parametrize("save", [save_pickled, save_safetensors])
def test_shards_are_read_together(tmp_path, save):
    files = shards(tmp_path, 2, save)
    index = tmp_path / f"model{files[0].suffix}.index.json"
    index.write_text("{}")
    for path in (*files, index):
        assert_same(read_file(path).tensors)
    files[1].unlink()
    for path in (files[0], index):
        with pytest.raises(bc.CheckpointError, match=r"one of 2 shards .*model-00002-of-00002\.\w+ are missing"):
            read_file(path)
    files[0].unlink()
    with pytest.raises(bc.CheckpointError, match="index of a checkpoint in shards, and none of them"):
        read_file(index)


def test_impossible_numbers_of_shards_are_refused(tmp_path):
    (tmp_path / "model-00001-of-99999.bin").write_bytes(saved(WEIGHTS))
    with pytest.raises(bc.CheckpointError, match="one of 99999 shards"):
        read_file(tmp_path / "model-00001-of-99999.bin")


def test_shards_that_have_a_weight_in_common_are_refused(tmp_path):
    for file in shards(tmp_path, 2, save_pickled):
        torch.save(WEIGHTS, file)
    with pytest.raises(bc.CheckpointError, match="also in the shards before it"):
        read_file(file)
