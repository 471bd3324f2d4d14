"""What other trials claimed is not proposed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sampler_studies import AREA, GRID, IN_AREA, run, sampler_of, scored, study_of

from nas.samplers import DEFAULT, Exhausted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.trial import FrozenTrial


@pytest.mark.parametrize("base", [DEFAULT, "random"])
def test_what_a_claim_refuses_is_not_proposed(base: str) -> None:
    study = study_of(base, GRID, AREA, claim=lambda _, params: params["width"] != 4)
    run(study, len(IN_AREA) - 3)
    assert {(p["width"], p["depth"]) for p in scored(study)} == IN_AREA - {(4, 3), (4, 4), (4, 5)}


def test_what_a_claim_refuses_is_counted_as_known() -> None:
    offered = []

    def claim(trial: FrozenTrial, params: Mapping[str, Any]) -> bool:
        offered.append((trial.number, dict(params)))
        return len(offered) > 3

    study = run(study_of("random", claim=claim), 1)
    assert sampler_of(study).counts == {"known": 3, "random": 1}
    assert offered[-1] == (0, scored(study)[0])


@pytest.mark.parametrize("base", [DEFAULT, "tpe", "random"])
def test_a_claim_is_asked_only_for_what_is_new_and_within_the_limits(base: str) -> None:
    offered = []
    study = study_of(base, claim=lambda _, params: offered.append(dict(params)) or True)
    run(study, 12)
    assert offered == scored(study)


def test_a_space_claimed_by_others_is_exhausted() -> None:
    study = study_of("random", GRID, AREA, claim=lambda *_: False)
    with pytest.raises(Exhausted):
        study.ask(GRID)
