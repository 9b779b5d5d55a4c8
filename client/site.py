# SPDX-License-Identifier: Apache-2.0
"""A hospital site: its prepared store, its memory on its own disk, and what it does when asked.

What stays here and why: AdamW's moments (twice the model on the wire, and a per-weight record of local
gradients), what the codec rounds off, and the personal parts. In deployment every message is a new process,
so all of it lies in `state/` beside the store. What leaves is the difference that training made.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from client.memory import (
    MOMENTS,
    MOST_ROUNDS,
    PERSONAL,
    RECEIVED,
    REST,
    Memory,
    load_moments,
    run_folder,
    save_moments,
    write_answer,
)
from client.people import default_ledger
from client.policy import Policy
from client.private import Privacy
from client.reference import reference_answer
from client.weights import Weights
from pasta_model.checkpoint import exchanged_layout
from pasta_model.config import Scalar, Settings
from pasta_model.data.clinical import SCHEMES, Moments, Standardisation, clinical_table
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import SiteStore
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import ExchangeError, StaleWeightsError, StoreError
from pasta_model.exchange.contents import METRICS, Parcel, SiteReport, TrainReport, TrainTask
from pasta_model.exchange.packing import pack
from pasta_model.exchange.reference import ReferenceTask
from pasta_model.exchange.steps import Step, encode_step
from pasta_model.exchange.vectors import Floats, Vector, digest, float_buffers, write_vector
from pasta_model.network.parts import members
from pasta_model.privacy.plan import Plan
from pasta_model.training import Place, make_optimizer

MIN_VALUES = 5  # sums over fewer values of a column would tell the values


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
    policy
        What the site allows; None where nobody has set one, as in a simulation.
    ledger
        Its privacy ledger; by default beside the store.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        policy: Policy | None = None,
        ledger: Path | None = None,
    ) -> None:
        self.store = SiteStore(path)
        self.settings = settings
        self.policy = policy
        self.scheme = SCHEMES[settings.data.clinical]
        self.layout = exchanged_layout(settings)
        self.sizes = float_buffers(self.layout)
        self.memory = Memory(run_folder(path, settings), self.layout)
        self.weights = Weights(settings, self.memory)
        self.privacy = Privacy(self.store, settings, policy, ledger or default_ledger(path))
        if settings.data.spacing != self.store.template.head.spacing:
            raise StoreError(
                f"site {self.store.site} is prepared at {self.store.template.head.spacing} mm,"
                f" wanted {settings.data.spacing} mm; prepare it again or set data.spacing"
            )
        if policy is not None:
            policy.refuse_run(settings, train_subjects=self._subjects("train"))
        if settings.training.threads:
            torch.set_num_threads(settings.training.threads)

    def report(self) -> SiteReport:
        """Say what the site holds when it joins: counts and clinical sums, no rows.

        Where the run protects subjects, the sums are zero: a public reference takes their place.
        """
        self.privacy.refuse_unaffordable()
        train = [] if self.privacy.on else self.store.indices("train")
        rows = [self.store.entries[i].clinical for i in train]
        return SiteReport(
            site=self.store.site,
            train_subjects=self._subjects("train"),
            valid_subjects=self._subjects("valid"),
            moments=Moments.of(clinical_table(rows, self.scheme)).without_few(MIN_VALUES),
            holds=self.weights.holds(),
        )

    def evaluate(self, task: TrainTask) -> Parcel:
        """Measure the received weights on the validation slabs."""
        start = time.monotonic()
        buffers = dict(zip(self.sizes, self.weights.walk(task), strict=True))
        _refuse_other(digest(buffers.values()), task)
        translator = self.weights.translator(buffers, task)
        mae, subjects = self._validate(translator, task), self._subjects("valid")
        return self._let_go(self._report(task, subjects, mae=mae, start=start).parcel())

    def train(self, task: TrainTask) -> Parcel:
        """Measure the received weights, train them on for the local steps, and answer with the difference."""
        known = self.memory.answer(task)
        if known is not None:
            self.privacy.refuse_unpaid(task)
            return self._let_go(known)
        if task.round >= MOST_ROUNDS:
            raise ExchangeError(f"asked for round {task.round}, wanted one below {MOST_ROUNDS}")
        with self.privacy.round(task) as plan:
            return self._let_go(self._trained(task, plan))

    def reference(self, task: ReferenceTask) -> Parcel:
        """Tell sums over the persons who train here, or again what was told before in this run."""
        return reference_answer(
            self.store, task, settings=self.settings, policy=self.policy, folder=self.memory.folder
        )

    def _trained(self, task: TrainTask, plan: Plan | None) -> Parcel:
        """Train a round and keep its answer."""
        start = time.monotonic()
        if task.round == 0:
            self.memory.forget()
        with self.memory.keep(task) as work:
            _refuse_other(write_vector(work / RECEIVED, self.layout, self.weights.walk(task)), task)
            received = Vector(work / RECEIVED, self.layout)
            translator = self.weights.translator(dict(received.pieces()), task)
            mae = self._validate(translator, task)
            loss = self._train(translator, task, work, plan)
            update = self._update(translator.network.state_dict(), received, task, work)
            subjects = self._subjects("train")
            report = self._report(task, subjects, mae=mae, start=start, loss=loss, update=update)
            answer = report.parcel()
            write_answer(work, task, answer)
            self.privacy.release(task)
        return answer

    def _train(self, translator: Translator, task: TrainTask, work: Path, plan: Plan | None) -> float:
        """Train, and keep in `work` what the next round needs."""
        optimizer = make_optimizer(translator.network, self.settings.training)
        earlier = self.memory.before(task.round)
        if earlier is not None:
            load_moments(earlier / MOMENTS, optimizer)
        loader = self._loader("train", task.standardisation)
        place = Place(self.store.site, task.round)
        loss = self.privacy.train(translator, loader, optimizer, place=place, plan=plan)
        save_moments(work / MOMENTS, optimizer)
        state = translator.network.state_dict()
        personal = members(state, self.settings.exchange.personal_parts)
        if personal:
            save_file({n: state[n].detach().cpu().contiguous() for n in personal}, work / PERSONAL)
        return loss

    def _update(self, state: Mapping[str, Tensor], received: Vector, task: TrainTask, work: Path) -> Step:
        """Encode what training changed, with what the last encoding rounded off (error feedback)."""
        local = pack({slot.name: state[slot.name] for slot in self.layout.slots})
        earlier, codec = self.memory.before(task.round), self.settings.exchange.uplink
        rest = Vector(earlier / REST, self.layout) if earlier and (earlier / REST).is_file() else None

        def differences() -> Iterator[tuple[str, Floats]]:
            for buffer, values in received.pieces():
                difference = local[buffer] - values
                yield buffer, difference if rest is None else difference + rest[buffer]

        update, left = encode_step(codec, differences())
        if codec != "float32":
            write_vector(work / REST, self.layout, left.values())
        return update

    def _report(
        self,
        task: TrainTask,
        subjects: int,
        *,
        start: float,
        mae: float | None,
        loss: float | None = None,
        update: Step | None = None,
    ) -> TrainReport:
        open_ = self.privacy.metrics == "open"
        return TrainReport(
            site=self.store.site,
            round=task.round,
            subjects=subjects,
            train_loss=loss if open_ else None,
            valid_mae=mae,
            seconds=time.monotonic() - start if open_ else None,
            update=update,
        )

    def _let_go(self, answer: Parcel) -> Parcel:
        """Take out of an answer what the site's policy keeps back."""
        if self.policy is None:
            return answer
        validated = self._subjects("valid") or self._subjects("train")
        covered = dict.fromkeys(METRICS, TrainReport.of(answer).subjects) | {"valid-mae": validated}
        kept = {name for name in METRICS if not self.policy.may_leave(name, subjects=covered[name])}
        return Parcel({n: value for n, value in answer.values.items() if n not in kept}, answer.arrays)

    def _validate(self, translator: Translator, task: TrainTask) -> float | None:
        split = "valid" if self.store.indices("valid") else "train"
        return self.privacy.error(translator, self._loader(split, task.standardisation), task)

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
        return len(self.store.persons(split))


def _refuse_other(found: str, task: TrainTask) -> None:
    if found != task.target:
        raise StaleWeightsError(f"the steps lead to weights {found[:12]}, wanted {task.target[:12]}")
