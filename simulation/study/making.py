# SPDX-License-Identifier: Apache-2.0
"""What is true of a method's model, by its kind: what it is, how it was trained, what it started from."""

from pathlib import Path

from pasta_model.config import Settings
from simulation.study.methods import Kind, Method
from simulation.study.run import Study

OURS: tuple[Kind, ...] = ("federation", "pooled", "alone", "preview")  # models of PASTA
_PAIR = "pair of diffusion models that makes an FDG-PET from a T1-weighted MRI"


def summary_of(method: Method) -> str:
    """Return a sentence on what a method's model is."""
    return {
        "federation": f"A {_PAIR}.",
        "pooled": f"A {_PAIR}, trained on the data of all sites in one place.",
        "alone": f"A {_PAIR}, one of each site, trained on its own data.",
        "preview": f"The conditioner of a {_PAIR}; it makes one itself, in one pass and without diffusion.",
        "rival": f"A network that PASTA is compared with, {method.rival}: {method.about}. It makes an FDG-PET"
        " from a T1-weighted MRI.",
        "mean": "The mean of the training PETs, the same for everybody: it looks at no MRI.",
    }[method.kind]


def making_of(method: Method, settings: Settings, *, sites: int) -> dict[str, str]:
    """Return the facts of how a method's model was made.

    Parameters
    ----------
    settings
        Of the run that made it: that of `method.after`, where there is one.
    sites
        How many train.
    """
    if method.kind == "mean":
        return {"network": "none", "clinical values": "none"}
    size = f"{settings.network.size} {settings.network.shape}".strip()
    network = {
        "rival": f"{method.rival}, about as large as PASTA {size}",
        "preview": f"conditioner of {size}",
    }
    rounds, steps = settings.federation.rounds, settings.training.local_steps
    slabs = settings.total_steps * slabs_a_step(settings)
    together = {"slabs": f"{slabs * sites} of {settings.network.slab_slices} slices"}
    each = {"slabs a site": f"{slabs} of {settings.network.slab_slices} slices"}
    length = {
        "rival": {"steps": f"{rounds * steps * sites}, on the data of all sites in one place", **together},
        "pooled": {"rounds": f"{rounds} of {steps * sites} steps in one place", **together},
        "alone": {"rounds": f"{rounds} of {steps} steps, each site by itself", **each},
    }
    return {
        "network": network.get(method.kind, size),
        **length.get(method.kind, {"rounds": f"{rounds} of {steps} local steps", **each}),
        "clinical values": "none" if method.kind == "preview" else settings.data.clinical,
        **({"starts from": Path(settings.run.initial).name} if _starts(method, settings) else {}),
    }


def slabs_a_step(settings: Settings) -> int:
    """Return how many slabs a site sees in a step; of a private one, in the mean."""
    if settings.privacy.unit == "subject":
        return settings.privacy.subjects_per_step * settings.privacy.slabs_per_subject
    return settings.training.batch_size * settings.training.accumulation


def started_elsewhere(study: Study) -> list[str]:
    """Return the methods that start from a model (`run.initial`) that this study has not trained.

    Where there is one, those that start from the study's own models are among them: these may go on from it.
    """
    methods, runs = study.methods(), (study.folder / "runs").resolve()
    makers = {name: methods[method.after or name] for name, method in methods.items()}
    settings = {name: study.settings.settings_of(maker) for name, maker in makers.items()}
    found = {n: settings[n].run.initial for n, maker in makers.items() if _starts(maker, settings[n])}
    inside = all(Path(path).resolve().is_relative_to(runs) for path in found.values())
    return [] if inside else list(found)


def not_compared(study: Study) -> str:
    """Say which methods may have seen the people who are measured here; "" where none may."""
    names = started_elsewhere(study)
    if not names:
        return ""
    return (
        f"{', '.join(map(repr, names))}: from a model that was made elsewhere. Whether it was trained on"
        " people who are measured here was not compared; if it was, the errors are too small."
    )


def _starts(method: Method, settings: Settings) -> bool:
    return bool(settings.run.initial) and method.kind not in ("mean", "rival")
