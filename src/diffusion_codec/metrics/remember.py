"""A network that looks once at a picture it is shown again: sweeps compare one original with many files."""

import hashlib
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn


class Remembering(nn.Module):
    """A frozen network with the outputs of the last `kept` inputs, told apart by their values."""

    def __init__(self, net: nn.Module, kept: int = 2) -> None:
        super().__init__()
        self.net, self.kept = net, kept
        self._outputs: OrderedDict[bytes, Any] = OrderedDict()

    def forward(self, x: Tensor) -> Any:
        """What the network makes of `x`, from memory where that was asked before."""
        key = hashlib.blake2b(x.contiguous().cpu().numpy().data, digest_size=16).digest()
        if key not in self._outputs:
            self._outputs[key] = self.net(x)
        self._outputs.move_to_end(key)
        while len(self._outputs) > self.kept:
            self._outputs.popitem(last=False)
        return self._outputs[key]
