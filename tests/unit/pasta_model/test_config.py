# SPDX-License-Identifier: Apache-2.0
"""Settings: what is refused and how, and that every way in gives the same settings."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pasta_model.config import Settings, settings_from_flat, settings_from_toml
from pasta_model.errors import ConfigError


def refused(**values) -> str:
    with pytest.raises(ConfigError) as error:
        settings_from_flat({k.replace("__", "."): v for k, v in values.items()})
    return str(error.value)


def lines_of(message: str) -> list[str]:
    return [line.removeprefix("  - ") for line in message.splitlines()[1:]]


class TestRefusals:
    def test_typo_gets_the_nearest_name(self) -> None:
        with pytest.raises(
            ConfigError, match=r"training\.learnin-rate: .*did you mean 'training\.learning-rate'"
        ):
            settings_from_flat({"training.learnin-rate": 1e-3})

    def test_name_without_a_section_gets_a_hint_too(self) -> None:
        assert "did you mean 'training.learning-rate'?" in refused(**{"learning-rate": 1e-3})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("training.local-steps", "30"),
            ("training.local-steps", 2.5),
            ("training.local-steps", True),
            ("training.channels-last", 1),
            ("training.device", 0),
            ("training.learning-rate", "fast"),
        ],
    )
    def test_wrong_type(self, name: str, value: object) -> None:
        assert lines_of(refused(**{name: value}))[0].startswith(f"{name}: found {value!r}, wanted a valid ")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("training.local-steps", 0),
            ("training.learning-rate", 0.0),
            ("training.learning-rate", float("nan")),
            ("training.ema-decay", 1.0),
            ("training.dtype", "float16"),
            ("federation.weight-cap", 1.01),
            ("federation.min-sites", 0),
            ("network.size", "huge"),
            ("data.spacing", 2.0),
            ("run.seed", -1),
        ],
    )
    def test_impossible_value(self, name: str, value: object) -> None:
        assert lines_of(refused(**{name: value}))[0].startswith(f"{name}: found {value!r}, wanted ")

    @pytest.mark.parametrize(
        "name", ["training.learning-rate", "loss.metaroi-strength", "training.weight-decay"]
    )
    def test_infinity_is_no_number_to_train_with(self, name: str) -> None:
        assert name in refused(**{name: float("inf")})

    def test_settings_that_do_not_fit_together(self) -> None:
        assert "sampling.steps" in refused(sampling__steps=101)
        assert "sampling.hop" in refused(sampling__hop=16)
        assert "sampling.start" in refused(sampling__start=55)
        assert "sampling.steps" in refused(sampling__start=50, sampling__steps=7)
        assert "sampling.noise 'slab' needs sampling.fusion 'end'" in refused(sampling__noise="slab")
        assert "timestep-stride" in refused(**{"diffusion.timestep-stride": 1001})

    def test_all_that_does_not_fit_together_at_once(self) -> None:
        said = lines_of(refused(sampling__steps=101, sampling__hop=16))
        assert [line.split(" ")[0] for line in said] == ["sampling.steps", "sampling.hop"]

    def test_site_as_the_unit_of_privacy_wants_equal_weights_a_mean_and_no_cross_evaluation(self) -> None:
        said = lines_of(
            refused(
                **{
                    "privacy.unit": "site",
                    "aggregation.rule": "median",
                    "federation.cross-evaluation": True,
                }
            )
        )
        assert len(said) == 3
        assert "aggregation.shares = 'equal' (the equal-weights rule)" in said[0]
        assert "wants a mean as aggregation.rule (fedavg, fedavgm, fedadam, fedyogi, fedadagrad)" in said[1]
        assert "rules out federation.cross-evaluation" in said[2]

    @pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
    def test_every_mean_of_equal_shares_may_protect_sites(self, rule: str) -> None:
        fitting = {"privacy.unit": "site", "aggregation.shares": "equal", "aggregation.rule": rule}
        assert settings_from_flat(fitting).privacy.unit == "site"

    def test_where_people_are_the_unit_shares_and_rules_are_free(self) -> None:
        private = {"privacy.unit": "subject", "aggregation.rule": "median"}
        assert settings_from_flat(private).aggregation.shares == "subjects"
        told = {"federation.cross-evaluation": True, "privacy.metrics": "open"}
        assert settings_from_flat({**private, **told}).federation.cross_evaluation

    @pytest.mark.parametrize("metrics", ["withheld", "noised"])
    def test_errors_that_are_protected_are_not_measured_crosswise(self, metrics: str) -> None:
        private = {"privacy__unit": "subject", "privacy__metrics": metrics}
        message = refused(**private, **{"federation__cross-evaluation": True})
        assert "federation.cross-evaluation tells errors of every site's data" in message

    def test_all_at_once(self) -> None:
        message = refused(
            **{
                "run.sed": 1,
                "training.local-steps": "many",
                "federation.rounds": 0,
                "seed": 3,
                "cohort.size": 3,
            }
        )
        assert "5 problem(s)" in message.splitlines()[0]
        names = {line.split(":")[0] for line in lines_of(message)}
        assert {"run.sed", "training.local-steps", "federation.rounds", "seed"} < names
        assert any(name.startswith("cohort") for name in names)


class TestWaysIn:
    def test_toml_and_flat_agree(self, tmp_path: Path) -> None:
        (tmp_path / "run.toml").write_text(
            '[training]\nlearning-rate = 0.002\nlocal-steps = 7\n[network]\nsize = "small"\n'
        )
        flat = {"training.learning-rate": 0.002, "training.local-steps": 7, "network.size": "small"}
        assert settings_from_toml(tmp_path / "run.toml") == settings_from_flat(flat)
        assert settings_from_flat(flat) != Settings()

    @pytest.mark.parametrize("text", ["[training\n", "\xff"])
    def test_not_toml(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.toml").write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"run\.toml: not a TOML file"):
            settings_from_toml(tmp_path / "run.toml")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            settings_from_toml(tmp_path / "run.toml")

    def test_toml_names_the_file_and_each_problem(self, tmp_path: Path) -> None:
        (tmp_path / "run.toml").write_text("[training]\nlearnin-rate = 1.0\nthreads = -1\n")
        with pytest.raises(
            ConfigError, match=r"(?s)run\.toml.*2 problem(?=.*learnin-rate)(?=.*training\.threads)"
        ):
            settings_from_toml(tmp_path / "run.toml")

    def test_flat_is_scalar_and_comes_back(self) -> None:
        changed = settings_from_flat(
            {"run.seed": 5, "data.spacing": 1.5, "loss.cycle": False, "run.name": "x"}
        )
        flat = changed.flat()
        assert all(isinstance(value, bool | int | float | str) for value in flat.values())
        assert flat["run.seed"] == 5
        assert "training.learning-rate" in flat
        assert settings_from_flat(flat) == changed

    def test_whole_number_is_a_float_where_one_is_wanted(self) -> None:
        assert settings_from_flat({"training.max-grad-norm": 2}).training.max_grad_norm == 2.0


class TestFrozen:
    def test_nothing_can_be_changed(self) -> None:
        settings = Settings()
        with pytest.raises(ValidationError, match="frozen"):
            settings.training.learning_rate = 1.0  # type: ignore[misc]
        with pytest.raises(ValidationError, match="frozen"):
            settings.run = Settings().run  # type: ignore[misc]


class TestDigest:
    @pytest.mark.parametrize(
        "change",
        [
            {"run.name": "b"},
            {"run.output": "b"},
            {"data.sites": "b"},
            {"run.resume": True},
            {"sampling.steps": 3},
        ],
    )
    def test_ignores_name_and_place(self, change: dict) -> None:
        assert settings_from_flat(change).digest() == Settings().digest()

    def test_follows_all_that_shapes_the_weights(self) -> None:
        changes = [
            {"run.seed": 1},
            {"network.size": "small"},
            {"training.learning-rate": 2e-3},
            {"federation.weight-cap": 0.6},
            {"loss.cycle": False},
            {"data.clinical": "none"},
        ]
        digests = {settings_from_flat(change).digest() for change in changes} | {Settings().digest()}
        assert len(digests) == len(changes) + 1

    def test_published_network_is_the_one_of_the_paper(self) -> None:
        base = settings_from_flat({"network.size": "base"}).network
        assert (base.slab_slices, base.base_width) == (15, 64)
        shape = base.resolved
        assert (shape.multipliers, shape.blocks, shape.attention) == ((1, 2, 3, 4), 4, (4, 8))
        assert (shape.heads, shape.groups, shape.patch) == (4, 32, 1)
