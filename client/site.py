# SPDX-License-Identifier: Apache-2.0
"""A hospital site: its prepared store, its state on its own disk, and what it does when asked.

What stays here and why: AdamW's moments (twice the model on the wire, and a per-weight record of local
gradients) live in `state/` beside the store, one file a round, because in deployment every message
is a new process. Raw weights are exchanged; the moving average of weights belongs to the server.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pasta_model.checkpoint import network_layout, new_translator
from pasta_model.config import Scalar, Settings
from pasta_model.data.clinical import SCHEMES, Moments, Standardisation, clinical_table
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import SiteStore
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import ExchangeError, StoreError
from pasta_model.exchange.contents import SiteReport, TrainReport, TrainTask
from pasta_model.exchange.packing import Layout, pack, unpack
from pasta_model.files import atomic_path
from pasta_model.training import Place, make_optimizer, train_steps
from pasta_model.validation import validation_mae

MIN_VALUES = 5  # sums over fewer values of a column would tell the values
KEPT_ROUNDS = 2  # a server that resumes repeats at most one round


def local_sites(settings: Settings, node_config: Mapping[str, Scalar]) -> dict[str, Path]:
    """Find the stores that this node serves, by site name.

    A deployed node names its own store (`site-store` in its node configuration). In a simulation the
    stores under `data.sites` are dealt out to the nodes, so any number of nodes serves all sites.

    Raises
    ------
    StoreError
        When there is no prepared site where it should be.
    """
    if "site-store" in node_config:
        paths = [Path(str(node_config["site-store"]))]
    else:
        root = Path(settings.data.sites)
        found = sorted(p.parent for p in root.glob("[!.]*/index.json"))
        if not found:
            raise StoreError(
                f"{root.resolve()}: no prepared site here; make one with 'pasta store', or those of the demo"
                " with 'make demo'"
            )
        number, total = int(node_config["partition-id"]), int(node_config["num-partitions"])
        paths = found[number::total]
    sites: dict[str, Path] = {}
    for path in paths:
        name = SiteStore(path).site
        if name in sites:
            raise StoreError(f"{sites[name]} and {path} are both site {name!r}; remove one")
        sites[name] = path
    return sites


class Site:
    """One site at work.

    Parameters
    ----------
    path
        Its prepared store.
    settings
        Of the run.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.store = SiteStore(path)
        self.settings = settings
        self.scheme = SCHEMES[settings.data.clinical]
        self._state = path / "state" / f"{settings.run.name}-{settings.digest()[:12]}"
        if settings.data.spacing != self.store.template.head.spacing:
            raise StoreError(
                f"site {self.store.site} is prepared at {self.store.template.head.spacing} mm,"
                f" wanted {settings.data.spacing} mm; prepare it again or set data.spacing"
            )
        if settings.training.threads:
            torch.set_num_threads(settings.training.threads)

    def report(self) -> SiteReport:
        """Say what the site holds when it joins: counts and clinical sums, no rows."""
        train = self.store.indices("train")
        rows = [self.store.entries[i].clinical for i in train]
        return SiteReport(
            site=self.store.site,
            train_subjects=self._subjects("train"),
            valid_subjects=self._subjects("valid"),
            moments=Moments.of(clinical_table(rows, self.scheme)).without_few(MIN_VALUES),
        )

    def evaluate(self, task: TrainTask) -> TrainReport:
        """Measure the received weights on the validation slabs."""
        start = time.monotonic()
        translator, _ = self._received(task)
        mae = self._validate(translator, task)
        return TrainReport(
            self.store.site, task.round, self._subjects("valid"), 0.0, mae, time.monotonic() - start, {}
        )

    def train(self, task: TrainTask) -> TrainReport:
        """Measure the received weights, train them on for the local steps, and send them back."""
        start = time.monotonic()
        translator, layout = self._received(task)
        mae = self._validate(translator, task)
        optimizer = make_optimizer(translator.network, self.settings.training)
        self._restore(optimizer, task.round)
        loss = train_steps(
            translator,
            self._loader("train", task.standardisation),
            optimizer,
            settings=self.settings,
            place=Place(self.store.site, task.round),
        )
        self._keep(optimizer, task.round)
        state = translator.network.state_dict()
        assert Layout.of(state) == layout, "training never changes shapes"
        return TrainReport(
            site=self.store.site,
            round=task.round,
            subjects=self._subjects("train"),
            train_loss=loss,
            valid_mae=mae,
            seconds=time.monotonic() - start,
            weights=pack(state),
        )

    def _received(self, task: TrainTask) -> tuple[Translator, Layout]:
        columns = len(self.scheme.columns)
        if {len(task.standardisation.mean), len(task.standardisation.spread)} != {columns}:
            raise ExchangeError(f"the standardisation does not have {columns} columns; use one scheme")
        layout = network_layout(self.settings)
        return new_translator(self.settings, unpack(task.weights, layout)), layout

    def _validate(self, translator: Translator, task: TrainTask) -> float:
        split = "valid" if self.store.indices("valid") else "train"
        loader = self._loader(split, task.standardisation)
        return validation_mae(translator, loader, settings=self.settings)

    def _loader(self, split: str, standardisation: Standardisation) -> SlabLoader:
        return SlabLoader(
            self.store,
            split=split,
            slab_slices=self.settings.network.slab_slices,
            scheme=self.scheme,
            standardisation=standardisation,
            planes=self.settings.data.planes,
        )

    def _subjects(self, split: str) -> int:
        return len({self.store.entries[i].person for i in self.store.indices(split)})

    def _state_file(self, round_number: int) -> Path:
        return self._state / f"optimizer-{round_number:05d}.safetensors"

    def _states(self) -> list[Path]:
        return sorted(self._state.glob("optimizer-*.safetensors"))

    def _restore(self, optimizer: torch.optim.Optimizer, round_number: int) -> None:
        """Load the moments that this site had after the last earlier round that it took part in."""
        if round_number == 0:
            shutil.rmtree(self._state, ignore_errors=True)
        earlier = [p for p in self._states() if p < self._state_file(round_number)]
        if earlier:
            saved = load_file(earlier[-1])
            content = optimizer.state_dict()
            content["state"] = _nested(saved)
            optimizer.load_state_dict(content)
            # The fused AdamW walks raw memory: moments must lie as their parameters do.
            for parameter, values in optimizer.state.items():
                for name, value in values.items():
                    if value.shape == parameter.shape:
                        values[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)

    def _keep(self, optimizer: torch.optim.Optimizer, round_number: int) -> None:
        flat = {
            f"{index}.{name}": value.detach().cpu().contiguous()
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        with atomic_path(self._state_file(round_number)) as temporary:
            save_file(flat, temporary)
        for old in self._states()[:-KEPT_ROUNDS]:
            old.unlink()


def _nested(flat: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return state
