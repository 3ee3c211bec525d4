"""The dial between conservative and realistic, as codecs to measure and as the surface of one photograph."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_codec import metrics
from diffusion_codec.audit.subjects import Findings, Subject
from diffusion_codec.codec import FIDELITY_STEPS
from diffusion_codec.evaluation import codecs as rate_codecs
from diffusion_codec.evaluation.codecs import Coded, DiffusionCodec, Pixels, RateCodec, SharedCodec


@dataclass(frozen=True)
class DialledCodec:
    """This codec, decoded with a fidelity; the files are those of the ordinary codec."""

    shared: SharedCodec
    fidelity: float
    has_rate: bool = True

    @property
    def name(self) -> str:
        """`dfc-<backbone>@f<fidelity>`."""
        return f"dfc-{self.shared.backbone}@f{self.fidelity:g}"

    @property
    def version(self) -> str:
        """Package version and fingerprint of the codec's weights."""
        return self.shared.version

    @property
    def settings(self) -> str:
        """Backbone and fidelity."""
        return f"backbone {self.shared.backbone}, fidelity {self.fidelity:g}, {FIDELITY_STEPS} DDIM steps"

    def run(self, pixels: Pixels, bpp: float) -> Coded:
        """The best file not above `bpp`, decoded with the fidelity."""
        compressed = self.shared.compress(pixels, int(bpp * pixels.shape[0] * pixels.shape[1] / 8))
        decoded = self.shared.codec.decompress(compressed.data, fidelity=self.fidelity)
        encode, decode = sum(compressed.seconds.values()), sum(decoded.seconds.values())
        return Coded(compressed.data, decoded.pixels, encode, decode, FIDELITY_STEPS)


def dialled(fidelities: Sequence[float]) -> list[RateCodec]:
    """This codec at several fidelities; they share one loaded model and the files it makes."""
    (own,) = rate_codecs.get(["dfc-mini"])
    assert isinstance(own, DiffusionCodec)
    return [DialledCodec(own.shared, fidelity) for fidelity in fidelities]


class DistanceExaminer:
    """Distortion and perceptual distance of whole photographs, for the surface of the dial."""

    name = "audit-dial"

    def __init__(self, subjects: Sequence[Subject[None]], origin: str, metric_names: Sequence[str]) -> None:
        self.subjects, self.origin = subjects, origin
        self.metrics = [metrics.get(name) for name in metric_names]
        self.protocols = {metric.name: metric.protocol for metric in self.metrics}

    def examine(self, index: int, decoded: Pixels) -> Findings:
        """Every metric of the decoded picture."""
        original = self.subjects[index].pixels
        return Findings({metric.name: round(metric(original, decoded), 5) for metric in self.metrics})
