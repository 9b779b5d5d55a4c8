# SPDX-License-Identifier: Apache-2.0
"""Parts of the network by name: what a federation shares, what stays at a site, what is not trained.

The shared part is what the sites' answers are made of. *Personal* parts are trained and never leave the
site (FedBN, arXiv 2102.07623, keeps the normalisation; FedRep, arXiv 2102.07078, a head); *frozen* parts
are not trained at all and stay as they were at the start.
"""

import re
from collections.abc import Iterable

PARTS = {
    "norms": r"(^|\.)(\w+_)?norm\.",  # affines of the group normalisations
    "clinical": r"\.clinical\.",  # what makes scale factors of the clinical vector
    "time": r"\.time\.",
    "attention": r"attention\.",
    "adapters": r"\.adapter\.",  # branches of low rank beside layers (`network/adapters.py`)
    "stems": r"_arm\.stem\.",
    "heads": r"_arm\.head(_norm)?\.",
    "encoders": r"_arm\.(stem|down)\.",
    "decoders": r"_arm\.(up|head|head_norm)\.",
    "pet-arm": r"^pet_arm\.",
    "mri-arm": r"^mri_arm\.",
}


def part_names(text: str) -> tuple[str, ...]:
    """Read a list such as "norms, clinical".

    Raises
    ------
    ValueError
        When a part is unknown or named twice.
    """
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(f"parts of the network: {', '.join(PARTS)} (not {', '.join(unknown)})")
    if len(set(names)) < len(names):
        raise ValueError("each part once")
    return names


def members(tensors: Iterable[str], parts: Iterable[str]) -> set[str]:
    """Names of the tensors that belong to any of the parts."""
    patterns = [re.compile(PARTS[part]) for part in parts]
    return {name for name in tensors if any(pattern.search(name) for pattern in patterns)}
