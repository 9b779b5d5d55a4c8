# SPDX-License-Identifier: Apache-2.0
"""Closing a round: from the spooled updates and the last weights to the next, one buffer at a time."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pasta_model.exchange.codecs import codec
from pasta_model.exchange.packing import Buffers
from pasta_model.exchange.steps import Step
from pasta_model.exchange.vectors import vector_writer
from server.aggregation import Floats, combined, moving_average, optimizer_state, server_step
from server.privacy import SiteNoise
from server.records import AVERAGE, MASTER, REFERENCE, Progress, RunFolder, StoredStep
from server.spool import Spool


def close_round(
    folder: RunFolder,
    progress: Progress,
    spool: Spool,
    shares: Mapping[str, float],
    work: Path,
    *,
    noise: SiteNoise | None = None,
) -> None:
    """Write the vectors of the next round into `work`, the step to them, and move `progress` on.

    For each buffer: combine the sites' updates (u), let the server optimizer take its step (x), follow it
    with the moving average, and encode the difference to what the sites know (r):

        x' = step(x, u);  q = encode(x' - r);  r' = r + decode(q)

    What encoding loses stays in x' - r' and is part of the next round's difference: error feedback.

    Where whole sites are private, u is their clipped mean with noise, and no line after it sees a site's
    update: whatever is computed from u is post-processing, which costs no privacy. The optimizer's memory and
    the moving average only ever saw earlier u, and each of those is paid for.
    """
    number, settings = progress.next_round, folder.settings
    names = optimizer_state(settings.aggregation)
    before = {n: folder.vector(number, n) for n in (MASTER, REFERENCE, AVERAGE)}
    states = {n: folder.vector(number, f"{n}.safetensors") for n in names} if number else {}
    about = folder.metadata(progress, number + 1)
    decay = _decay(folder, number)
    step = Step(settings.exchange.downlink, Buffers())
    with ExitStack() as stack:
        files = (*before, *(f"{n}.safetensors" for n in names))
        out = {n: stack.enter_context(vector_writer(work / n, folder.layout, about)) for n in files}
        for buffer in folder.sizes:
            sent = spool.buffers(buffer)
            update = noise.mean(sent, spool.norms) if noise else combined(sent, shares, settings.aggregation)
            known: dict[str, Floats] = {n: vector[buffer] for n, vector in states.items()}
            master, kept = server_step(
                before[MASTER][buffer], update, known, settings=settings.aggregation, number=number
            )
            out[MASTER].add(master)
            average = before[AVERAGE][buffer] if number else master
            out[AVERAGE].add(moving_average(average, master, decay=decay))
            reference = before[REFERENCE][buffer]
            step.arrays[buffer] = codec(step.codec).encode(master - reference)
            out[REFERENCE].add(reference + step.decode(buffer, reference.size))
            for name, values in kept.items():
                out[f"{name}.safetensors"].add(values)
        target = out[REFERENCE].digest()
    folder.save_step(number + 1, StoredStep(progress.target, target, step))
    progress.target, progress.next_round = target, number + 1


def _decay(folder: RunFolder, number: int) -> float:
    """Return the moving average's decay; the first rounds' weights are forgotten fast (warm-up)."""
    training = folder.settings.training
    return min(training.ema_decay**training.local_steps, (1 + number) / (10 + number))
