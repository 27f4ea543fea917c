"""The layers of MobileNet v1 and v2, width 1.0, for images of 224 × 224 and 1,000 classes.

Sources: Howard and others, "MobileNets" (2017), table 1; Sandler and others, "MobileNetV2" (2018),
table 2. Batch normalization is folded into the convolutions, as converters do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

IMAGE_SIZE = 224
CLASSES = 1000

# Output channels and stride of each depthwise-separable convolution after the first convolution.
_V1_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
# Expansion, output channels, repetitions, and stride of the first repetition.
_V2_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FIRST_CHANNELS = 32
_V2_LAST_CHANNELS = 1280


class Kind(enum.Enum):
    """What a layer does."""

    CONVOLUTION = "convolution"
    DEPTHWISE = "depthwise"
    ADD = "add"
    MEAN = "mean"
    DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; `sources` are the numbers of the layers it takes, 0 being the image."""

    kind: Kind
    name: str
    sources: tuple[int, ...]
    channels: int
    kernel: int = 1
    stride: int = 1
    relu6: bool = False


def mobilenet_v1_layers() -> tuple[Layer, ...]:
    """A convolution, 13 times depthwise and pointwise, the mean, the classes."""
    chain = _Chain()
    chain.add(Kind.CONVOLUTION, "conv", _FIRST_CHANNELS, kernel=3, stride=2, relu6=True)
    channels = _FIRST_CHANNELS
    for number, (wider, stride) in enumerate(_V1_BLOCKS, start=1):
        chain.add(
            Kind.DEPTHWISE, f"depthwise_{number}", channels, kernel=3, stride=stride, relu6=True
        )
        chain.add(Kind.CONVOLUTION, f"pointwise_{number}", wider, relu6=True)
        channels = wider
    return chain.end(channels)


def mobilenet_v2_layers() -> tuple[Layer, ...]:
    """A convolution, 17 inverted residual blocks, a convolution, the mean, the classes."""
    chain = _Chain()
    chain.add(Kind.CONVOLUTION, "conv", _FIRST_CHANNELS, kernel=3, stride=2, relu6=True)
    channels = _FIRST_CHANNELS
    number = 0
    for expansion, narrow, repetitions, first_stride in _V2_BLOCKS:
        for repetition in range(repetitions):
            number += 1
            stride = first_stride if repetition == 0 else 1
            before = chain.last
            wide = channels * expansion
            if expansion > 1:
                chain.add(Kind.CONVOLUTION, f"expand_{number}", wide, relu6=True)
            chain.add(
                Kind.DEPTHWISE, f"depthwise_{number}", wide, kernel=3, stride=stride, relu6=True
            )
            chain.add(Kind.CONVOLUTION, f"project_{number}", narrow)
            if repetition > 0:
                chain.add(Kind.ADD, f"add_{number}", narrow, beside=before)
            channels = narrow
    chain.add(Kind.CONVOLUTION, "conv_last", _V2_LAST_CHANNELS, relu6=True)
    return chain.end(_V2_LAST_CHANNELS)


class _Chain:
    """Layers, each after the one before it."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []

    @property
    def last(self) -> int:
        """The number of the last layer; 0 is the image."""
        return len(self._layers)

    def add(
        self,
        kind: Kind,
        name: str,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        relu6: bool = False,
        beside: int | None = None,
    ) -> None:
        """Append a layer, fed by the last one and by `beside` where given."""
        sources = (self.last,) if beside is None else (beside, self.last)
        self._layers.append(Layer(kind, name, sources, channels, kernel, stride, relu6))

    def end(self, channels: int) -> tuple[Layer, ...]:
        """All layers, with the mean over the image and the classes at the end."""
        self.add(Kind.MEAN, "mean", channels)
        self.add(Kind.DENSE, "logits", CLASSES)
        return tuple(self._layers)
