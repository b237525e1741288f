"""torch.compile as an option (paper Tab. 7): faster where it works, plain where it does not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..network import BiRefNet, BiRefNetOutput
from .out_of_memory import is_out_of_memory

logger = logging.getLogger(__name__)

# Where the classes of what a compiler raises come from; its tools fail with Python's own.
_COMPILERS = {"builtins", "subprocess", "sympy", "torch", "triton"}


class CompiledNetwork:
    """A fused network behind torch.compile.

    Each input shape is compiled once; images of equal size never compile again. Where compiling fails
    (no compiler, an unsupported platform), one warning is given and the network runs as it is. An exception
    that is no compiler's, such as one a caller's hook raises to end the run, passes through.
    """

    def __init__(self, network: BiRefNet) -> None:
        self.network = network
        self._compiled: Callable[[Tensor], BiRefNetOutput] | None = torch.compile(network, dynamic=False)

    def __call__(self, x: Tensor) -> BiRefNetOutput:
        """B, 3, H, W -> BiRefNetOutput."""
        if self._compiled is None:
            return self.network(x)
        try:
            return self._compiled(x)
        except Exception as error:  # whatever a compiler may raise, the network itself still runs
            if is_out_of_memory(error) or type(error).__module__.partition(".")[0] not in _COMPILERS:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(f"torch.compile failed ({reason}); running without it.", RuntimeWarning, stacklevel=2)
            logger.debug("torch.compile failed", exc_info=True)
            self._compiled = None
            return self.network(x)
