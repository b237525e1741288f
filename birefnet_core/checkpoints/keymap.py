"""Published names of weights <-> ours. The only module that has the published names.

A name is translated by its longest known prefix. The table of a network is composed from small
tables, one for each kind of part, written as (ours, published).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import product

from ..config import NUM_STAGES, RECONSTRUCTION_BLOCKS, BiRefNetConfig

Table = list[tuple[str, str]]

_DEFORMABLE_BRANCHES = ("aspp1", "aspp_deforms.0", "aspp_deforms.1", "aspp_deforms.2")
_PLAIN_BRANCHES = ("aspp1", "aspp2", "aspp3", "aspp4")
_DEEPEST_STAGE = 64  # no encoder has more blocks in one stage


def _under(ours: str, published: str, table: Table) -> Table:
    """A part's table with the prefixes of its place in the network."""
    return [(f"{ours}.{a}", f"{published}.{b}") for a, b in table]


def _swin() -> Table:
    return [
        ("patch_embed", "patch_embed"),
        *[(f"stages.{i}.blocks", f"layers.{i}.blocks") for i in range(NUM_STAGES)],
        # Ours halves the map before a stage's blocks, the published one after the stage above.
        *[(f"stages.{i}.downsample", f"layers.{i - 1}.downsample") for i in range(1, NUM_STAGES)],
        *[(f"norms.{i}", f"norm{i}") for i in range(NUM_STAGES)],
    ]


def _pvt_v2() -> Table:
    return [
        ("patch_embed", "patch_embed1"),
        *[(f"stages_{i}.downsample", f"patch_embed{i + 1}") for i in range(1, NUM_STAGES)],
        *[(f"stages_{i}.blocks", f"block{i + 1}") for i in range(NUM_STAGES)],
        *[
            (f"stages_{i}.blocks.{j}.mlp.dwconv", f"block{i + 1}.{j}.mlp.dwconv.dwconv")
            for i in range(NUM_STAGES)
            for j in range(_DEEPEST_STAGE)
        ],
        *[(f"stages_{i}.norm", f"norm{i + 1}") for i in range(NUM_STAGES)],
    ]


def _convolutional() -> Table:
    return [(f"parts.{i}", f"conv{i + 1}") for i in range(NUM_STAGES)]


# Kinds of encoders, each by what the names of its backbones begin with.
FAMILIES: dict[str, Callable[[], Table]] = {
    "swin_v1": _swin,
    "pvt_v2": _pvt_v2,
    "dino_v3": lambda: [("model", "model")],
    "vgg16": _convolutional,
    "resnet": _convolutional,
    "efficientnet_lite": lambda: [(name, name) for name in ("conv_stem", "bn1", "blocks")],
}


def _reconstruction_block(deformable: bool) -> Table:
    branches = []
    for i, name in enumerate(_DEFORMABLE_BRANCHES if deformable else _PLAIN_BRANCHES):
        conv, published = f"aspp.branches.{i}.conv", f"dec_att.{name}.atrous_conv"
        branches += [
            (conv, published),
            (f"{conv}.offset", f"{published}.offset_conv"),
            (f"{conv}.modulator", f"{published}.modulator_conv"),
            (f"{conv}.kernel", f"{published}.regular_conv"),
            (f"aspp.branches.{i}.norm", f"dec_att.{name}.bn"),
        ]
    return [
        ("conv_in", "conv_in"),
        ("norm_in", "bn_in"),
        *branches,
        ("aspp.pool.conv", "dec_att.global_avg_pool.1"),
        ("aspp.pool.norm", "dec_att.global_avg_pool.2"),
        ("aspp.conv", "dec_att.conv1"),
        ("aspp.norm", "dec_att.bn1"),
        ("conv_out", "conv_out"),
        ("norm_out", "bn_out"),
    ]


def _inward_reference() -> Table:
    return [("conv_in", "conv1"), ("conv_out", "conv_out")]


def _reconstruction(kind: str) -> Table:
    """The reconstruction module: our stage i, coarse to fine, is the published block 4 - i."""
    block = [("0", "0"), ("1", "1")] if kind == "residual" else _reconstruction_block(kind == "deformable_aspp")
    table: Table = []
    for i in range(NUM_STAGES):
        published = NUM_STAGES - i
        table += _under(f"blocks.{i}.block", f"decoder_block{published}", block)
        table += _under(f"blocks.{i}.inward", f"ipt_blk{published + 1}", _inward_reference())
        table += [
            (f"blocks.{i}.outward.conv", f"gdt_convs_{published}.0"),
            (f"blocks.{i}.outward.norm", f"gdt_convs_{published}.1"),
            (f"blocks.{i}.outward.attention", f"gdt_convs_attn_{published}.0"),
            (f"blocks.{i}.outward.gradient", f"gdt_convs_pred_{published}.0"),
            (f"supervision.{i}", f"conv_ms_spvn_{published}"),
            (f"laterals.{i}", f"lateral_block{published}.conv"),
        ]
    table += _under("inward", "ipt_blk1", _inward_reference())
    return [*table, ("head", "conv_out1.0")]


@cache
def key_table(family: str, reconstruction_block: str) -> dict[str, str]:
    """Prefixes of our names -> prefixes of the published names, one to one.

    Args:
        family: A key of ``FAMILIES``.
        reconstruction_block: As in ``BiRefNetConfig``.
    """
    squeeze = _reconstruction_block(deformable=reconstruction_block == "deformable_aspp")
    table = [
        *_under("localization.encoder.backbone", "bb", FAMILIES[family]()),
        *_under("localization.squeeze", "squeeze_module.0", squeeze),
        ("localization.classifier.fc", "cls_head.0"),
        *[(f"localization.neck.convs.{i}", f"decoder.pyramid_neck_x{i + 1}.conv") for i in range(NUM_STAGES)],
        *_under("reconstruction", "decoder", _reconstruction(reconstruction_block)),
    ]
    return dict(table)


@cache
def _published_to_ours(family: str, reconstruction_block: str) -> dict[str, str]:
    return {published: ours for ours, published in key_table(family, reconstruction_block).items()}


def _table_arguments(config: BiRefNetConfig) -> tuple[str, str]:
    family = next(name for name in sorted(FAMILIES, key=len, reverse=True) if config.backbone.startswith(name))
    return family, config.reconstruction_block


def to_published(names: Iterable[str], config: BiRefNetConfig) -> dict[str, str]:
    """Our names -> published names.

    Raises:
        KeyError: A name our network does not have.
    """
    pairs, unknown = _translate(names, key_table(*_table_arguments(config)))
    if unknown:
        raise KeyError(f"no published name for {unknown[0]!r}")
    return pairs


def from_published(names: Iterable[str], config: BiRefNetConfig | None = None) -> tuple[dict[str, str], list[str]]:
    """Published names -> our names, and the names that belong to no part of the network.

    Args:
        names: Published names.
        config: The network's; without it, the table that knows the most of the names is taken.
    """
    if config is not None:
        return _translate(names, _published_to_ours(*_table_arguments(config)))
    names, best = list(names), None
    for family, block in product(FAMILIES, RECONSTRUCTION_BLOCKS):
        pairs, unknown = _translate(names, _published_to_ours(family, block))
        if best is None or len(unknown) < len(best[1]):
            best = pairs, unknown
        if not unknown:
            break
    return best or ({}, names)


def from_encoder_file(names: Iterable[str], config: BiRefNetConfig) -> dict[str, str]:
    """Names in the file of an encoder, or of a whole published network -> names in our encoder, without any others."""
    encoder, published = "localization.encoder.backbone.", "bb."
    whole = {name if name.startswith(published) else published + name: name for name in names}
    pairs, _ = from_published(whole, config)
    return {whole[name]: ours.removeprefix(encoder) for name, ours in pairs.items() if ours.startswith(encoder)}


def _translate(names: Iterable[str], table: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Names by their longest prefix in a table, and the names that have none."""
    pairs, unknown = {}, []
    deepest = max(prefix.count(".") for prefix in table) + 1  # parts; names of others may have any number
    for name in names:
        parts = name.split(".", deepest)
        prefixes = (".".join(parts[:length]) for length in range(min(len(parts), deepest), 0, -1))
        prefix = next((prefix for prefix in prefixes if prefix in table), None)
        if prefix is None:
            unknown.append(name)
        else:
            pairs[name] = table[prefix] + name[len(prefix) :]
    return pairs, unknown
