"""torch.compile as an option (paper Tab. 7), region by region."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager

from timm.layers import DropPath
from torch import Tensor, nn

from ..network import BiRefNet, BiRefNetOutput
from ..text import first_line

logger = logging.getLogger(__name__)

# Equal blocks share one compiled graph, but dynamo counts graphs by function: Swin has 16 for one input shape (4
# widths, shifted or not, full- and half-size image), and dynamo gives up after 8.
RECOMPILE_LIMIT = 128


class CompiledNetwork(nn.Module):
    """A network whose encoder blocks are compiled.

    Blocks of equal shape share one compiled graph, which takes seconds, where the graph of a whole network takes
    minutes. The decoder is not compiled: nearly all of its time is spent in convolutions. Each input shape is compiled
    once. Where compiling fails (no compiler, an unsupported platform) there is one warning, and the network runs
    uncompiled. Other exceptions pass through.

    Args:
        network: A fused network; its blocks are compiled in place.
    """

    def __init__(self, network: BiRefNet) -> None:
        super().__init__()
        self.network = network
        self._blocks = list(repeated_blocks(network.localization.encoder))
        for module in network.modules():
            if isinstance(module, DropPath):  # does nothing in eval mode, but its rate would make each block a graph
                module.drop_prob = 0.0
        self._compile()

    def forward(self, x: Tensor) -> BiRefNetOutput:
        """B, 3, H, W -> BiRefNetOutput."""
        if not self._blocks:
            return self.network(x)
        try:
            with _patched_config():
                return self.network(x)
        except compiler_errors() as error:
            reason = first_line(error)
            logger.debug("torch.compile failed", exc_info=True)
        self._give_up(reason)
        return self.network(x)

    def _compile(self) -> None:
        try:
            for block in self._blocks:
                block.compile(dynamic=False)
        except RuntimeError as error:  # a platform or Python version that torch.compile does not support
            self._give_up(first_line(error))

    def _give_up(self, reason: str) -> None:
        warnings.warn(f"torch.compile failed ({reason}); running without it.", RuntimeWarning, stacklevel=2)
        for block in self._blocks:
            block._compiled_call_impl = None
        self._blocks = []


def repeated_blocks(encoder: nn.Module) -> Iterator[nn.Module]:
    """The modules in an encoder's innermost lists of modules of one class, such as transformer blocks."""
    for module in encoder.modules():
        if _is_repeated(module) and not any(inner is not module and _is_repeated(inner) for inner in module.modules()):
            yield from module.children()


def _is_repeated(module: nn.Module) -> bool:
    """Whether a module is a list of several modules of one class, each with modules of its own."""
    blocks = list(module.children()) if isinstance(module, nn.ModuleList | nn.Sequential) else []
    return len(blocks) > 1 and len({type(block) for block in blocks}) == 1 and any(blocks[0].children())


def compiler_errors() -> tuple[type[Exception], ...]:
    """What dynamo and inductor raise, a missing C++ compiler or Triton included."""
    from torch._dynamo import exc as dynamo

    errors: list[type[Exception]] = [dynamo.TorchDynamoException]
    try:
        from torch._inductor import exc as inductor
    except ImportError:
        return tuple(errors)
    names = ("CppCompileError", "InvalidCxxCompiler", "OperatorIssue", "SubgraphLoweringException")
    return (*errors, *(getattr(inductor, name) for name in names if hasattr(inductor, name)))


def _patched_config() -> AbstractContextManager:
    from torch._dynamo import config

    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    return config.patch({name: RECOMPILE_LIMIT})
