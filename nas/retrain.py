"""retrain(): chosen networks trained in full, as one function."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from nas.retrain_progress import Retrained, RetrainListener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study

    from nas.data import TrainingData
    from nas.retrain_record import Network
    from nas.retraining import Retraining

# As in search.py, what takes seconds to import is imported when it is used.


def retrain(  # noqa: PLR0913 - the flags of retrain.py, one to one
    trial: int | None = None,
    *,
    top: int | None = None,
    by: str = "finalist",
    model: str | None = None,
    architecture: str | Path | None = None,
    study: str | None = None,
    storage: str | Path | None = None,
    recipe: str | Path = "strong",
    seeds: int = 1,
    holdout: bool = False,
    dataset: str | None = None,
    image_size: int | None = None,
    data: str | Path = Path("studies/data"),
    device: str = "auto",
    keep_checkpoints: bool = False,
    checkpoint_seconds: float = 60.0,
    compile: bool = False,  # noqa: A002 - the flag's name
    export: Sequence[str] = (),
    listener: RetrainListener | None = None,
    **settings: object,
) -> list[Retrained]:
    """Train chosen networks in full and record what they reach; the same call goes on.

    One network is named by `trial`, `model` or `architecture`. `top` trains the best of the study
    with val held out, and then only the winner by mean val accuracy in full. Under torchrun all
    processes train together; rank 0 reads, writes and returns, the others return nothing.

    Args:
        trial: Number of a scored trial.
        top: How many of the best scored trials.
        by: Best by "finalist" (finalists first), "denoised" (the estimate without luck) or "raw".
        model: A hand-made network, by name.
        architecture: An architecture's JSON file.
        study: Name of the study; the only one there is need not be named.
        storage: Database URL or file NAME.db; by default the SQLite files under `studies/`.
        recipe: A preset of `nas/presets/recipes` or a TOML file.
        seeds: How many; they are 0, 1, ...
        holdout: Train without val and score val, not test.
        dataset: By default the study's, or cifar10 without one.
        image_size: Pixels a side of a folder's images, if `dataset` names one.
        data: Folder of the data set's files.
        device: "auto", "cpu" or "cuda".
        keep_checkpoints: Whether all checkpoints stay.
        checkpoint_seconds: Between checkpoints.
        compile: Whether networks run through `torch.compile`.
        export: Formats to save models in as well: "onnx", "pt2", "fp16".
        listener: Whom to tell.
        settings: Single settings in place of the recipe's, such as `epochs`.

    Returns:
        One a seed, of every training; the value is a test accuracy where the split says so. A
        training that diverges or has too little memory is left out if others went well.

    Raises:
        UserError: Anything asked for that cannot be done, in one line.
    """
    from dataclasses import replace

    from nas.assignment import follow
    from nas.data_sets import full_name, short_name
    from nas.distributed import join
    from nas.errors import UserError, check_seconds, whole_number
    from nas.find_study import find_study, study_folder, url_of
    from nas.formats import require_available
    from nas.full_training import require_fit
    from nas.recipe import RetrainConfig
    from nas.results import check_ranking
    from nas.retraining import Retraining
    from nas.storage import database_failures_in_one_line
    from nas.study import IMPORTED
    from nas.training import choose_device

    ranks = join(device)
    if not ranks.leads:
        follow(ranks)
        return []
    seeds = whole_number("--seeds", seeds)
    top = None if top is None else whole_number("--top", top)
    check_seconds("--checkpoint-seconds", checkpoint_seconds, may_be_zero=True)
    check_ranking(by)
    _require_one({"--trial": trial, "--top": top, "--model": model, "--architecture": architecture})
    formats = tuple(export.split(",") if isinstance(export, str) else export)
    require_available(formats)
    listener = listener or RetrainListener()
    recipe_name, config = RetrainConfig.load(recipe, **settings)
    if recipe_name == IMPORTED:
        raise UserError(f"{recipe}: 'imported' is how trainings of a sheet are called; rename it")
    chosen_device = choose_device(device)
    is_from_study = trial is not None or top is not None
    source = find_study(study, storage) if is_from_study or study is not None else None
    networks = (
        _from_study(source, trial, top, by)
        if source is not None and is_from_study
        else [_from_outside(model, architecture)]
    )
    dataset = full_name(dataset or "", image_size) or None
    training_data, test_fingerprint = _data(source, dataset, data)
    if "resolution" not in settings or settings["resolution"] is None:
        config = config.model_copy(update={"resolution": training_data.at_scale(config.resolution)})
    if model is not None:
        networks = [replace(n, arch=training_data.fitted(n.arch)) for n in networks]
    for network in networks:
        require_fit(network.arch, training_data)
    name = short_name(training_data.name) if source is None else source.study_name
    folder = study_folder(name)
    work = Retraining(
        data=training_data,
        data_root=Path(data),
        test_fingerprint=test_fingerprint,
        config=config,
        recipe=recipe_name,
        is_held_out=holdout or top is not None,
        device=chosen_device,
        folder=folder,
        sister=_sister(source, name, storage),
        source=source,
        keeps_checkpoints=keep_checkpoints,
        checkpoint_seconds=checkpoint_seconds,
        listener=listener,
        ranks=ranks,
        is_compiled=compile,
        formats=formats,
    )
    with database_failures_in_one_line(url_of(work.sister)):
        retrained = _run(work, networks, seeds)
        if top is not None:
            retrained += _run_winner(work, networks, retrained, 0 if holdout else seeds)
    ranks.tell(None)
    ranks.part()
    _export(work, retrained)
    return retrained


def _require_one(given: dict[str, object]) -> None:
    """Refuse (UserError) none or several of the flags that name what to train."""
    from nas.errors import UserError

    named = [flag for flag, value in given.items() if value is not None]
    if len(named) != 1:
        raise UserError(
            f"name what to train by one of {', '.join(given)}, "
            f"not by {' and '.join(named) or 'none'}"
        )


def _run(work: Retraining, networks: list[Network], seeds: int) -> list[Retrained]:
    """Train all, also after some that fail; the last failure is raised if all do."""
    from nas.retrain_record import FailedTrainingError

    retrained = []
    for network in networks:
        for seed in range(seeds):
            try:
                retrained.append(work.run(network, seed))
            except FailedTrainingError as error:
                if not retrained and (network, seed) == (networks[-1], seeds - 1):
                    raise
                work.listener.on_failure(str(error))
    return retrained


def _run_winner(
    work: Retraining, networks: list[Network], held_out: list[Retrained], seeds: int
) -> list[Retrained]:
    """Name the winner of the trainings without val, and train it in full."""
    from dataclasses import replace

    winner = best_by_mean(held_out)
    work.listener.on_winner(winner)
    chosen = [network for network in networks if network.name == winner]
    return _run(replace(work, is_held_out=False), chosen, seeds)


def _export(work: Retraining, retrained: list[Retrained]) -> None:
    """Save all models in the formats asked for, also after one that cannot be."""
    from nas.errors import UserError

    for each in retrained:
        try:
            work.export(each)
        except UserError as error:
            work.listener.on_failure(f"{each.folder}: {error}")


def best_by_mean(retrained: list[Retrained]) -> str:
    """Name the network with the highest mean accuracy over its seeds; of equal ones the first.

    One of which a seed failed is behind those of which none did.
    """
    by_name: dict[str, list[float]] = {}
    for each in retrained:
        by_name.setdefault(each.name, []).append(each.accuracy)
    return max(by_name, key=lambda name: (len(by_name[name]), mean(by_name[name])))


def _from_study(study: Study, trial: int | None, top: int | None, by: str) -> list[Network]:
    from nas.results import best_trials
    from nas.retrain_record import Network
    from nas.trials import architecture_of

    numbers = [trial] if trial is not None else best_trials(study, top or 1, by=by)
    return [Network(architecture_of(study, n), f"trial-{n}", n) for n in numbers]


def _from_outside(model: str | None, file: str | Path | None) -> Network:
    from nas.errors import UserError
    from nas.presets import hand_made_network, read_architecture
    from nas.retrain_record import Network

    if model is not None:
        return Network(hand_made_network(model), model)
    assert file is not None
    arch, name = read_architecture(Path(file)), Path(file).stem
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name of {file} is not UTF-8 text; name it otherwise") from None
    return Network(arch, f"arch-{arch.arch_id}" if name == "architecture" else name)


def _data(
    source: Study | None, name: str | None, root: str | Path
) -> tuple[TrainingData, str | None]:
    """Read the study's data set, or another one on request; and its test images' fingerprint."""
    from nas.data import check_test_files, load_anew
    from nas.errors import UserError
    from nas.study import stored_identity

    identity = {} if source is None else stored_identity(source)
    data = load_anew(name or identity.get("data", "cifar10"), root)
    test_fingerprint = check_test_files(data.name, root)
    if data.name == identity.get("data") and data.fingerprint != identity["data_fingerprint"]:
        is_folder = data.name.startswith("folder:")
        where, remedy = (
            ("", "with the images as they were the same command goes on")
            if is_folder
            else (f" in {root}", "name the folder of its files by --data")
        )
        raise UserError(
            f"{data.name}{where} is not what study {source.study_name!r} was scored on "  # type: ignore[union-attr]
            f"(fingerprint {data.fingerprint}, there {identity['data_fingerprint']}); {remedy}"
        )
    return data, test_fingerprint


def _sister(source: Study | None, name: str, url: str | Path | None) -> Study:
    """Open the study of the record; networks from outside a study share one per data set."""
    from nas.find_study import RETRAIN, sister_name, study_url
    from nas.sisters import open_sister
    from nas.storage import open_storage, storage_url

    if source is not None:
        return open_sister(source._storage, name, RETRAIN)  # noqa: SLF001
    storage = open_storage(storage_url(url) if url else study_url(sister_name(name, RETRAIN)))
    return open_sister(storage, name, RETRAIN)
