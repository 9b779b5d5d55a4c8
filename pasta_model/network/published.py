# SPDX-License-Identifier: Apache-2.0
"""How the published PASTA code names the parts of its network, and what those names tell of its shape.

`model.*` is the arm that denoises the PET, `encoder.*` the arm that reads the MRI, of the same layout.
Written from facts about names and shapes; no line of the published code is here.
"""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from pasta_model.network.shape import SHAPES, Shape

ARMS = {"model.": "pet_arm.", "encoder.": "mri_arm."}
# Inside a residual block, ours: theirs. Numbers count their nn.Sequential, activations included.
BLOCK = {
    "in_norm": "in_layers.0",
    "in_conv": "in_layers.2",
    "time.1": "emb_layers.1",
    "clinical.0": "tab_embed.0",
    "clinical.2": "tab_embed.2",
    "out_norm": "out_layers.0",
    "out_conv": "out_layers.3",
    "skip": "skip_connection",
    "in_resample.conv": "h_upd",  # downsampling calls its convolution `op`, upsampling `conv`
    "skip_resample.conv": "x_upd",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
OUTSIDE = {
    "time.0": "time_embed.0",
    "time.2": "time_embed.2",
    "stem": "input_blocks.0.0",
    "head_norm": "out.0",
    "head": "out.2",
}
# Layers of a residual block whose first side is its width, and the stem's and head's like them.
_WIDE = ("in_layers.2", "out_layers.0", "out_layers.3")


def published_places(shape: Shape) -> dict[str, str]:
    """Return the published name of each block of an arm, by ours."""
    places = {f"{ours}.": f"{theirs}." for ours, theirs in OUTSIDE.items()}
    places |= {
        "middle_in.": "middle_block.0.",
        "middle_attention.": "middle_block.1.",
        "middle_out.": "middle_block.2.",
    }
    levels, encoder, decoder = len(shape.multipliers), 1, 0
    for level in range(levels):
        for block in range(shape.blocks):
            places[f"down.{level}.blocks.{block}.block."] = f"input_blocks.{encoder}.0."
            places[f"down.{level}.blocks.{block}.attention."] = f"input_blocks.{encoder}.1."
            encoder += 1
        if level < levels - 1:  # the last level has no next one, and its way up is the image's own
            places[f"down.{level}.resample."] = f"input_blocks.{encoder}.0."
            places[f"up.{level}.resample."] = f"output_upsample_blocks.{level}.0."
            encoder += 1
        for block in range(shape.blocks + 1):
            places[f"up.{level}.blocks.{block}.block."] = f"output_blocks.{decoder}.0."
            places[f"up.{level}.blocks.{block}.attention."] = f"output_blocks.{decoder}.1."
            decoder += 1
    return places


def published_name(ours: str, places: Mapping[str, str]) -> str:
    """Return the published name of one of our tensors, arm included."""
    arm, _, inside = ours.partition(".")
    theirs = next(prefix for prefix, own in ARMS.items() if own == f"{arm}.")
    place = next(p for p in places if inside.startswith(p))
    layer, _, kind = inside.removeprefix(place).rpartition(".")
    if not layer:  # a layer outside the blocks
        return f"{theirs}{places[place]}{kind}"
    table = ATTENTION if "attention" in place else BLOCK
    resampling = {"down": ".op", "up": ".conv"}.get(inside.split(".")[0], "") if "resample" in layer else ""
    return f"{theirs}{places[place]}{table[layer]}{resampling}.{kind}"


def dead_names(shape: Shape) -> set[str]:
    """Tensors that the published forward pass never uses.

    Its resampling blocks ignore the time that they own weights for, and the arm that reads the MRI is
    never given clinical values, not even when places are exchanged.
    """
    dead = set()
    for ours, theirs in published_places(shape).items():
        for kind in ("weight", "bias"):
            if "resample" in ours:
                dead |= {f"{arm}{theirs}emb_layers.1.{kind}" for arm in ARMS}
            elif ours.endswith(".block.") or ours in ("middle_in.", "middle_out."):
                dead |= {f"encoder.{theirs}tab_embed.{layer}.{kind}" for layer in (0, 2)}
    return dead


def gate_positions(shape: Shape) -> tuple[int, ...]:
    """Where our feature maps stand in the published conditioner's list.

    That list also holds its input, the stem's and the down blocks' outputs, which gate nothing; ours
    (`Conditioning.features`) holds the gating maps alone, in the same order.
    """
    levels, position, places = len(shape.multipliers), 2, list[int]()
    for level in range(levels):
        places += range(position, position + shape.blocks)
        position += shape.blocks + (level < levels - 1)
    return (*places, *range(position, position + 1 + levels * (shape.blocks + 1)))


def infer_shape(state: Mapping[str, Tensor], words: str = "") -> Shape:
    """Infer the shape of the arms; heads and groups cannot be seen and are those of `base`, or of `words`.

    The PET's arm tells it. Every name and size is a witness, and the most frequent word counts, so that
    one tensor that is missing or damaged is later reported as such, instead of making another network.

    Raises
    ------
    ValueError
        When names and sizes tell of no network.
    """
    width = _first_side(state, "input_blocks.0.0", "out.0")
    slices = _first_side(state, "out.2")
    widths, attention, blocks, number = list[int](), list[int](), 0, 1
    while _has(state, f"input_blocks.{number}."):
        changes = any(_has(state, f"input_blocks.{number}.0.{path}.") for path in ("h_upd", "x_upd"))
        if changes:
            widths.append(_first_side(state, *(f"input_blocks.{number}.0.{layer}" for layer in _WIDE)))
        elif not widths:
            blocks += 1
        if _has(state, f"input_blocks.{number}.1.") and 2 ** len(widths) not in attention:
            attention.append(2 ** len(widths))
        number += 1
    last = _first_side(state, *(f"middle_block.0.{layer}" for layer in _WIDE))
    base = SHAPES["base"]
    seen = Shape(
        slices=slices,
        width=width,
        multipliers=tuple(w // width for w in (*widths, last)),
        blocks=blocks,
        attention=tuple(attention),
        heads=1,
        groups=1,
    )
    return seen.overridden(f"heads {base.heads}, groups {base.groups}, {words}")


def clinical_length(state: Mapping[str, Tensor]) -> int:
    """Length of the clinical vector; 0 where the blocks take none."""
    ends = ".tab_embed.0.weight"
    said = Counter(int(t.shape[1]) for n, t in state.items() if n.endswith(ends) and t.ndim == 2)
    return said.most_common(1)[0][0] if said else 0


def _has(state: Mapping[str, Tensor], start: str) -> bool:
    return any(name.startswith(f"model.{start}") for name in state)


def _first_side(state: Mapping[str, Tensor], *layers: str) -> int:
    """Return the most frequent first side of these layers' weights and biases."""
    names = [f"model.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    said = Counter(int(state[name].shape[0]) for name in names if name in state and state[name].ndim)
    if not said:
        raise ValueError(f"no usable tensor like {names[0]}")
    return said.most_common(1)[0][0]
