"""What does not ship with the project: a test that needs it is skipped, with the reason, where it is not at hand."""

import pytest

from diffusion_codec import fetch, metrics

KODAK = fetch.store().find("kodak")
needs_kodak = pytest.mark.skipif(KODAK is None, reason="the Kodak photographs are not on this machine")
needs_squeeze = pytest.mark.skipif(
    not metrics.can_measure("lpips-squeeze"), reason="no SqueezeNet weights on this machine"
)
