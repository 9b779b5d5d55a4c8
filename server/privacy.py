# SPDX-License-Identifier: Apache-2.0
"""Noise at the server: privacy of whole sites, for many of them and a server that is trusted.

    mean = (sum_i u_i min(1, C / ||u_i||) + N(0, sigma^2 C^2)) / n

(McMahan et al., 1710.06963.) An update u_i is clipped over all exchanged buffers together, after decoding,
and every site counts the same. Neighbours are two federations of which one has a site's update where the
other has nothing; that a site took part is no secret, so neither is n. Every site is asked in every round: no
sampling amplifies anything, and none is claimed.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pasta_model.config import Settings
from pasta_model.errors import PrivacyError, Problems
from pasta_model.privacy.accounting import Accountant, Release, calibrated, epsilon
from pasta_model.privacy.normals import Normals, on_grid, secure_normals
from pasta_model.privacy.plan import largest
from server.aggregation import Floats, weighted_sum

ACCOUNTANT: Accountant = "rdp"  # as Flower's own strategies count it, so that both can be compared
FEW_SITES = 10
DROWNED = 10.0  # times as long as the longest mean


@dataclass(frozen=True)
class SiteNoise:
    """The mechanism, with the noise that a run's budget wants.

    Attributes
    ----------
    noise_multiplier
        sigma.
    max_update_norm
        C.
    normals
        Draws standard normal values.
    """

    noise_multiplier: float
    max_update_norm: float
    delta: float
    normals: Normals = secure_normals

    def mean(self, updates: Iterable[tuple[str, Floats]], norms: Mapping[str, float]) -> Floats:
        """Return one buffer of the sites' clipped mean, with noise.

        Parameters
        ----------
        updates
            This buffer of every site.
        norms
            Of the sites' whole updates.
        """
        clip, sites = self.max_update_norm, len(norms)
        weights = {site: clip / max(norm, clip) / sites for site, norm in norms.items()}
        mean, spread = weighted_sum(updates, weights), self.spread(sites)
        return on_grid(mean + spread * self.normals(mean.size), spread=spread)

    def spread(self, sites: int) -> float:
        """Return the standard deviation of the noise on a weight of the mean: sigma C / n."""
        return self.noise_multiplier * self.max_update_norm / sites

    def spent(self, rounds: int) -> float:
        """Return epsilon after so many rounds."""
        return epsilon([Release(self.noise_multiplier, 1.0, rounds)], delta=self.delta, accountant=ACCOUNTANT)

    def forecast(self, *, sites: int, values: int) -> tuple[bool, str]:
        """Say how the noise compares with the mean of so many sites, and whether it will drown it.

        Parameters
        ----------
        values
            Weights that are exchanged.
        """
        spread, clip = self.spread(sites), self.max_update_norm
        length = spread * math.sqrt(values)
        drowns = sites < FEW_SITES or length > DROWNED * clip
        said = (
            f"noise at the server: each weight of the mean of {sites} sites gets noise of standard deviation"
            f" {self.noise_multiplier:g} x {clip:g} / {sites} = {spread:.3g}; over {values:,} weights it is"
            f" {length:.3g} long, and the mean is {clip:g} at most"
        )
        advice = (
            ". It will drown the mean: this is for many sites and few weights (exchange.trained). Among few"
            " hospitals, privacy.unit = 'subject' protects their patients"
        )
        return drowns, said + (advice if drowns else "")


def site_noise(
    settings: Settings, *, sites: Collection[str], normals: Normals = secure_normals
) -> SiteNoise | None:
    """Make the mechanism of a run; None where the unit is not the site.

    Parameters
    ----------
    sites
        All that are invited; no more can take part.

    Raises
    ------
    PrivacyError
        When the run cannot keep its promise; with all the reasons.
    """
    p, rounds = settings.privacy, settings.federation.rounds
    if p.unit != "site":
        return None
    problems = Problems("this run cannot keep its sites private")
    training = len(set(sites) - settings.federation.held_out_sites)
    if training and p.delta >= 1 / training:
        problems.add(
            f"privacy.delta is {p.delta:g}, wanted less than 1 / sites = {1 / training:.2g}: with more,"
            f" publishing all of one of {training} sites would count as private"
        )
    sigma = p.noise_multiplier
    if not sigma:
        try:
            sigma = calibrated(
                epsilon=p.epsilon, delta=p.delta, sampling_rate=1.0, steps=rounds, accountant=ACCOUNTANT
            )
        except PrivacyError as error:
            problems.add(str(error))
    made = SiteNoise(sigma, p.max_update_norm, p.delta, normals)
    if sigma and (cost := made.spent(rounds)) > p.epsilon:
        fitting = largest(lambda n: made.spent(n) <= p.epsilon, rounds)
        problems.add(
            f"{rounds} rounds at noise multiplier {sigma:g} cost epsilon {cost:.2f}, wanted at most"
            f" {p.epsilon:g}; that holds {fitting} round(s). Lower federation.rounds, or set"
            " privacy.noise-multiplier = 0: then the least noise that is enough is computed"
        )
    problems.raise_if_any(PrivacyError)
    return made
