# SPDX-License-Identifier: Apache-2.0
"""The answers of the open round, on disk as they came: encoded, one file a site.

Whether an update is far out, and what share a site has, is known only when the round closes. So answers wait
on disk, and aggregation then reads one buffer of one site at a time: the server's memory does not depend on
how many sites there are.
"""

import shutil
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from safetensors import safe_open
from safetensors.numpy import save_file

from pasta_model.exchange.steps import Floats, Step
from pasta_model.files import atomic_path


class Spool:
    """Updates of one round.

    Parameters
    ----------
    folder
        Where the answers are.
    sizes
        Buffers of the layout.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        self.folder = folder
        self.sizes = sizes
        self.norms: dict[str, float] = {}
        self.codecs: dict[str, str] = {}

    @classmethod
    def empty(cls, folder: Path, sizes: Mapping[str, int]) -> Self:
        """Begin an attempt at a round: nothing has come yet."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return cls(folder, sizes)

    @classmethod
    def found(cls, folder: Path, sizes: Mapping[str, int]) -> Self:
        """Open what an earlier process spooled, as it is."""
        spool = cls(folder, sizes)
        for path in folder.glob("[!.]*.safetensors"):
            with safe_open(path, framework="numpy") as file:
                about = file.metadata()
            spool.norms[path.stem], spool.codecs[path.stem] = float(about["norm"]), about["codec"]
        return spool

    def add(self, site: str, update: Step) -> None:
        """Check an update and keep it.

        Raises
        ------
        ExchangeError
            When it is not exactly what the layout says, or not finite.
        """
        norm = update.check(self.sizes)
        about = {"norm": repr(norm), "codec": update.codec}
        with atomic_path(self._file(site)) as temporary:
            save_file(update.arrays, temporary, metadata=about)
        self.norms[site], self.codecs[site] = norm, update.codec

    def drop(self, site: str) -> None:
        """Take an update out again."""
        del self.norms[site], self.codecs[site]
        self._file(site).unlink()

    def far_out(self, factor: float, *, usual: float = 0.0) -> dict[str, str]:
        """Say of which sites the update is too long, and why.

        The yardstick is the lower median of the norms: with two sites the shorter one, because a long
        update does the harm. An update of nothing is no yardstick; nor is one far shorter than was
        `usual` in the round before, or a site could shut the others out by sending next to nothing.
        """
        lengths = [norm for norm in self.norms.values() if norm > 0]
        if not lengths:
            return {}
        yardstick = statistics.median_low(lengths)
        if yardstick * factor < usual:
            yardstick = usual
        return {
            site: f"its update is {norm / yardstick:.3g} times as long as the median, allowed {factor:g}"
            for site, norm in self.norms.items()
            if norm > factor * yardstick
        }

    def buffers(self, buffer: str) -> Iterator[tuple[str, Floats]]:
        """Yield one buffer of every site, in the order of names: sums never depend on who was faster."""
        for site in sorted(self.norms):
            with safe_open(self._file(site), framework="numpy") as file:
                step = Step(self.codecs[site], {buffer: file.get_tensor(buffer)})
            yield site, step.decode(buffer, self.sizes[buffer])

    def update(self, site: str) -> Step:
        """Return the whole update of a site."""
        with safe_open(self._file(site), framework="numpy") as file:
            return Step(self.codecs[site], {buffer: file.get_tensor(buffer) for buffer in self.sizes})

    def _file(self, site: str) -> Path:
        return self.folder / f"{site}.safetensors"
