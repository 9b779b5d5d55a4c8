# SPDX-License-Identifier: Apache-2.0
"""`pasta synthesize`: from MRIs, prepared or raw, to synthetic PETs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from pasta_model.config import Scalar

RAW_SAMPLES = 4  # of a raw scan, unless asked otherwise: their spread is the uncertainty map
Model = Annotated[Path, Option(help="A model.safetensors.")]
Scans = Annotated[
    list[Path] | None,
    Argument(help="A manifest (.tsv, .csv), or prepared MRIs (.nii, .nii.gz); none with --mri."),
]
Output = Annotated[
    Path, Argument(help="Where the synthetic PETs go, as BIDS derivatives.", show_default=False)
]
Raw = Annotated[
    list[Path] | None,
    Option(help="A raw T1, as the scanner made it; the PET goes back to its space; may be repeated."),
]
Registration = Annotated[str, Option(help="Of a raw T1 to the template: affine or deformable.")]
Clinical = Annotated[
    list[str] | None, Option(help="A clinical value of a lone MRI, as age=71; may be repeated.")
]
Ignore = Annotated[
    bool, Option("--ignore-unknown", help="Leave out clinical values that the model does not know.")
]
Seed = Annotated[int, Option(min=0, help="The same seed gives the same result.")]
Samples = Annotated[int | None, Option(min=1, help="Of several: their mean and spread; 4 of a raw T1.")]
Steps = Annotated[int | None, Option(min=1, help="Denoising steps.")]
Hop = Annotated[int | None, Option(min=1, help="Slices from slab to slab.")]
Solver = Annotated[str | None, Option(help="ddim or dpm++2m.")]
Planes = Annotated[str | None, Option(help="axial, coronal, sagittal, or all: their mean; as trained.")]
More = Annotated[
    list[str] | None, Option("--set", help="Any other sampling setting, as start=500; may be repeated.")
]
Preview = Annotated[bool, Option("--preview", help="The conditioner's own PET, in one pass.")]
Published = Annotated[bool, Option("--published", help="Sample as the published code did, faults and all.")]
Reference = Annotated[
    Path | None,
    Option("--familiarity", help="A familiarity.safetensors: flag MRIs unlike those of training."),
]
Device = Annotated[str | None, Option(help="cpu, cuda; by default as trained.")]


def synthesize(
    *,
    model: Model,
    scans: Scans = None,
    output: Output,
    mri: Raw = None,
    registration: Registration = "affine",
    clinical: Clinical = None,
    ignore_unknown: Ignore = False,
    seed: Seed = 0,
    samples: Samples = None,
    steps: Steps = None,
    hop: Hop = None,
    solver: Solver = None,
    planes: Planes = None,
    more: More = None,
    preview: Preview = False,
    published: Published = False,
    familiarity: Reference = None,
    device: Device = None,
) -> None:
    """Synthesise the PET of every session of a manifest, or of MRIs; goes on where it was stopped."""
    _synthesize(
        model,
        _either(scans or [], mri or []),
        output,
        registration=registration if mri else None,
        clinical=clinical or [],
        ignore=ignore_unknown,
        changes={"samples": samples, "steps": steps, "hop": hop, "solver": solver, "planes": planes},
        more=more or [],
        published=published,
        seed=seed,
        device=device,
        preview=preview,
        familiarity=familiarity,
    )


def _either(prepared: Sequence[Path], raw: Sequence[Path]) -> Sequence[Path]:
    from pasta_model.errors import ManifestError

    if prepared and raw:
        raise ManifestError("found prepared scans and raw ones (--mri); wanted either: run the command twice")
    return raw or prepared


def _synthesize(
    model: Path,
    scans: Sequence[Path],
    output: Path,
    *,
    clinical: Sequence[str],
    ignore: bool,
    changes: Mapping[str, Scalar | None],
    more: Sequence[str],
    published: bool,
    registration: str | None,
    **job: Any,
) -> None:
    from rich.console import Console

    from pasta_model.checkpoint import load_checkpoint
    from pasta_model.config import changes_of, sampling_of
    from pasta_model.console import progress_bar
    from pasta_model.data.clinical import SCHEMES, known_values
    from pasta_model.data.manifest import read_scans
    from pasta_model.derivatives import SynthesisJob, flagged, synthesise_sessions
    from pasta_model.errors import ManifestError
    from pasta_model.prepare.settings import prepare_settings

    if not scans:
        raise ManifestError("nothing to synthesise; give a manifest, prepared MRIs, or raw ones with --mri")
    settings = load_checkpoint(model).settings
    sessions = known_values(read_scans(scans, clinical), SCHEMES[settings.data.clinical], ignore=ignore)
    prepare = None
    if registration:  # raw scans
        prepare = prepare_settings(registration=registration, spacing=settings.data.spacing)
        changes = {**changes, "samples": changes["samples"] or RAW_SAMPLES}
    sampling = sampling_of(settings, published=published, changes={**changes, **changes_of(more)})
    console = Console()
    one = len(sessions) == 1 and console.is_terminal  # of one session, its steps are worth showing
    with progress_bar(console, "steps" if one else "synthesis") as progress:
        paths = synthesise_sessions(
            SynthesisJob(model, output, sampling=sampling, prepare=prepare, **job),
            sessions,
            **{"step_progress" if one else "progress": progress},
        )
    if job["familiarity"]:
        unlike = flagged(paths)
        for path in unlike:
            console.print(f"{path.name}: its MRI is unlike the training federation's", markup=False)
        console.print(
            f"{len(unlike)} of {len(paths)} MRIs are unlike the training federation's", markup=False
        )
    console.print(f"{output}: {len(paths)} synthetic PETs", markup=False)
