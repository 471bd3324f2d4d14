"""search(): the whole job as one function; plan(): what it would do, as a value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.progress import Progress

if TYPE_CHECKING:
    from optuna.study import Study

    from nas.budget import Budget
    from nas.data import TrainingData
    from nas.plan import Plan
    from nas.proxy import ProxyConfig
    from nas.space import SearchSpace

MAX_WORKERS = 1_000
LARGEST_SEED = 2**32 - 1
FLAGS = {"num_params": "--budget", "num_macs": "--max-macs", "size_bytes": "--max-bytes"}

# `import nas` brings this module in, so what takes seconds to import is imported when it is used.


def search(
    budget: float = 5e6,
    trials: int = 200,
    *,
    timeout: float | None = None,
    progress: Progress | None = None,
    **settings: Any,  # noqa: ANN401 - each as `plan` says
) -> Study:
    """Search networks within a parameter budget until the study has `trials` scored ones.

    The same call continues a study that was interrupted.

    Args:
        budget: Largest number of trainable parameters.
        trials: Target: scored trials in the study, those of earlier calls included.
        timeout: Seconds after which no trial starts.
        progress: Callbacks.
        settings: All that `plan` takes, such as `dataset="cifar100"`.

    Returns:
        The Optuna study; the value of a trial is its validation accuracy in [0, 1].

    Raises:
        UserError: Anything asked for that cannot be done, in one line.
    """
    import time

    from nas.errors import check_seconds, whole_number
    from nas.storage import database_failures_in_one_line

    trials = whole_number("--trials", trials)
    check_seconds("--timeout", timeout, may_be_zero=True)
    progress = progress or Progress()
    deadline = None if timeout is None else time.monotonic() + timeout
    planned = plan(budget, **_known(settings))
    with database_failures_in_one_line(planned.url):
        opened = planned.open()
        progress.on_start(opened, trials, planned.url)
        why = planned.run(opened, trials, deadline, progress)
        progress.on_end(opened, why)
    return opened


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Give settings of `plan` (UserError: it has none of such a name)."""
    from inspect import signature

    from nas.errors import UserError

    known = signature(plan).parameters
    if unknown := [name for name in settings if name not in known]:
        raise UserError(f"unknown setting {unknown[0]}; known: {', '.join(known)}")
    return settings


def plan(  # noqa: PLR0913 - the flags of search.py, one to one
    budget: float = 5e6,
    *,
    fill: float = 0.9,
    max_macs: float | None = None,
    max_bytes: float | None = None,
    space: str | Path = "resnet",
    dataset: str = "cifar10",
    image_size: int | None = None,
    data: str | Path = Path("studies/data"),
    proxy: str | Path = "standard",
    epochs: int | None = None,
    resolution: int | None = None,
    width_factor: float | None = None,
    batch_size: int | None = None,
    finalists: str | None = None,
    sampler: str = "default",
    study: str | None = None,
    storage: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    trial_timeout: float | None = None,
    patience: int | None = None,
    seed: int = 0,
) -> Plan:
    """Check all that a search is told, and put it together.

    Nothing is written but the files of a data set that is downloaded, and its decoded images.

    Args:
        budget: Largest number of trainable parameters.
        fill: Least share of the budget a network uses, in [0, 1].
        max_macs: Largest number of multiply-adds of one image, forward.
        max_bytes: Largest size as float32.
        space: A preset of `nas/presets/spaces` or a TOML file.
        dataset: "cifar10", "cifar100", "fashion-mnist", "folder:PATH" (images by class), or
            "synthetic", which is generated.
        image_size: Pixels a side of a folder's images; 64 if absent.
        data: Folder of the data set's files; downloaded there if they are absent.
        proxy: A preset of `nas/presets/proxies` or a TOML file.
        epochs: Instead of the proxy's; so are `resolution`, `width_factor` and `batch_size`.
        resolution: Pixels a side.
        width_factor: Of every width while scoring.
        batch_size: Images a step.
        finalists: Score the best again in the end, in the sister study `<study>-finalists`: "5x3"
            is five with three seeds each; "0" none; by default the proxy's.
        sampler: "default", "tpe", "random", "gp", "cmaes" or "nsga2".
        study: Name; by default data set, space, budget and proxy.
        storage: Database URL or file NAME.db; by default an SQLite file `studies/<study>.db`.
        device: "auto", "cpu" or "cuda".
        workers: Processes that score trials; by default one a GPU, else one. 0 scores them in this
            process, for debugging. Several share the cores evenly.
        trial_timeout: Seconds after which a trial ends as FAIL.
        patience: Stop when so many scored trials in a row brought nothing better.
        seed: Of the proposals. The proxy's own seed is part of the proxy.

    Raises:
        UserError: Anything asked for that cannot be done, in one line.
    """
    from nas.budget import Budget
    from nas.errors import check_seconds, whole_number
    from nas.samplers import check_sampler
    from nas.space import SearchSpace
    from nas.space_file import load_space

    check_seconds("--trial-timeout", trial_timeout)
    seed = whole_number("--seed", seed, 0, LARGEST_SEED)
    patience = None if patience is None else whole_number("--patience", patience)
    if workers is not None:
        workers = whole_number("--workers", workers, 0, MAX_WORKERS)
    limits = Budget.of(budget, fill=fill, max_macs=max_macs, max_bytes=max_bytes)
    check_sampler(sampler)  # refuse what cannot be before anything is read or written
    space_name, space_config = load_space(space)

    from nas.data_sets import full_name  # these load torch, which takes seconds
    from nas.finalists import Finalists
    from nas.find_study import check_new_name, study_url
    from nas.plan import Plan
    from nas.presets import changed
    from nas.storage import storage_url
    from nas.training import choose_device

    if study is not None:  # in any database, for `studies/` gets a folder of that name
        check_new_name(study)
    devices = _devices(choose_device(device))
    flags = {
        "epochs": epochs,
        "resolution": resolution,
        "width_factor": width_factor,
        "batch_size": batch_size,
    }
    changes = {name: value for name, value in flags.items() if value is not None}
    proxy_name, config = _proxy_config(proxy, limits.max_params, changes)
    config = config if finalists is None else changed(config, {"finalists": finalists})
    training_data = _training_data(full_name(dataset, image_size), data)
    if resolution is None:
        config = config.model_copy(update={"resolution": training_data.at_scale(config.resolution)})
    search_space = SearchSpace.from_config(
        space_config,
        max_params=limits.max_params,
        num_classes=training_data.num_classes,
        in_channels=training_data.in_channels,
        stem_stride=training_data.stem_stride,
    )
    limits = _for_images(limits, training_data.image_size, search_space.stem_stride)
    _refuse_what_never_fits(search_space, limits, seed)

    name = (
        _study_name(training_data.name, space_name, limits, proxy_name) if study is None else study
    )
    check_new_name(name)  # a file of a space or a proxy may have any name
    num_workers = len(devices) if workers is None else workers
    return Plan(
        url=study_url(name) if storage is None else storage_url(storage),
        study=name,
        budget=limits,
        space=search_space,
        dataset=training_data.name,
        data_root=data,
        proxy=config,
        sampler=sampler,
        seed=seed,
        devices=devices,
        trial_timeout=trial_timeout,
        patience=patience,
        finalists=Finalists.parse(config.finalists),
        num_workers=num_workers,
        num_threads=_num_threads(num_workers),
        proxy_changes=changes,
    )


def _devices(device: str) -> tuple[str, ...]:
    """List the devices that workers share among them."""
    import torch

    if device != "cuda":
        return (device,)
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))


def _num_threads(num_workers: int) -> int:
    """Give the threads of a worker: they share the cores evenly."""
    import torch

    return max(1, torch.get_num_threads() // max(1, num_workers))


def _proxy_config(
    name_or_file: str | Path, max_params: int, changes: dict[str, Any]
) -> tuple[str, ProxyConfig]:
    """Read a proxy and change it; that shows in its name: quick-epochs3."""
    from nas.presets import changed, label
    from nas.proxy import ProxyConfig

    name, config = ProxyConfig.load(name_or_file, max_params)
    config = changed(config, changes)
    return name + label(config, changes), config


def _for_images(budget: Budget, image_size: int, stem_stride: int) -> Budget:
    """Count for the data set's images, where they are not of the usual size."""
    from dataclasses import replace

    from nas.complexity import RESOLUTION

    return (
        budget if image_size == RESOLUTION * stem_stride else replace(budget, image_size=image_size)
    )


def _training_data(name: str, root: str | Path) -> TrainingData:
    from nas.data import check_test_files, load_anew

    found = load_anew(name, root)
    check_test_files(name, root)
    return found


def _study_name(dataset: str, space: str, budget: Budget, proxy: str) -> str:
    from nas.budget import budget_name
    from nas.data_sets import short_name

    return f"{short_name(dataset)}-{space}-{budget_name(budget.max_params)}-{proxy}"


def _refuse_what_never_fits(space: SearchSpace, budget: Budget, seed: int) -> None:
    """Refuse a budget no network of the space can meet, before anything is written."""
    from random import Random

    from nas.errors import UserError
    from nas.width_scaling import WidthScaling

    for name, (minimum, maximum) in budget.bounds.items():
        cost = budget.costs[name]
        smallest, largest = space.corner(min, cost), space.corner(max, cost)
        if cost(smallest) > maximum:
            raise UserError(
                f"no network of the space has {name} of at most {maximum:,}; the smallest "
                f"({smallest}) has {cost(smallest):,}; raise {FLAGS[name]}"
            )
        if cost(largest) < (minimum or 0):
            raise UserError(
                f"no network of the space has {name} of at least {minimum:,}; the largest "
                f"({largest}) has {cost(largest):,}; lower --budget or --fill"
            )
    scaling = WidthScaling(space, budget.limits(space))
    if scaling.random_feasible(Random(seed)) is None:
        seen = scaling.region.describe_seen()
        raise UserError(
            f"no network within all limits was found; seen: {seen}; raise "
            f"{' or '.join(FLAGS[name] for name in budget.bounds)}, or lower --fill"
        )
