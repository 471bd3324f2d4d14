"""search(): the whole job as one function."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from nas.architecture import Architecture
    from nas.budget import Budget
    from nas.data import TrainingData
    from nas.proxy import ProxyConfig
    from nas.samplers import BudgetSampler
    from nas.space import SearchSpace
    from nas.workers import Worker

MAX_WORKERS = 1_000

# `import nas` brings this module in, so what takes seconds to import is imported when it is used.


def search(  # noqa: PLR0913 - the flags of search.py, one to one
    budget: float = 5e6,
    trials: int = 200,
    *,
    fill: float = 0.9,
    max_macs: float | None = None,
    max_bytes: float | None = None,
    space: str = "resnet",
    dataset: str = "cifar10",
    image_size: int | None = None,
    data: str | Path = Path("studies/data"),
    proxy: str = "standard",
    epochs: int | None = None,
    resolution: int | None = None,
    width_factor: float | None = None,
    batch_size: int | None = None,
    sampler: str = "default",
    study: str | None = None,
    storage: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    timeout: float | None = None,
    trial_timeout: float | None = None,
    patience: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Study:
    """Search networks within a parameter budget until the study has `trials` scored ones.

    The same call continues a study that was interrupted.

    Args:
        budget: Largest number of trainable parameters.
        trials: Target: scored trials in the study, those of earlier calls included.
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
        sampler: "default", "tpe", "random", "gp", "cmaes" or "nsga2".
        study: Name; by default data set, space, budget and proxy.
        storage: Database URL; by default an SQLite file `studies/<study>.db`.
        device: "auto", "cpu" or "cuda".
        workers: Processes that score trials; by default one a GPU, else one. 0 scores them in this
            process, for debugging. On a CPU several have one thread each.
        timeout: Seconds after which no trial starts.
        trial_timeout: Seconds after which a trial ends as FAIL.
        patience: Stop when so many scored trials in a row brought nothing better.
        seed: Of the proposals. The proxy's own seed is part of the proxy.
        progress: Callbacks.

    Returns:
        The Optuna study; the value of a trial is its validation accuracy in [0, 1].

    Raises:
        UserError: Anything asked for that cannot be done, in one line.
    """
    import time

    from nas.budget import Budget
    from nas.data import full_name
    from nas.errors import UserError
    from nas.samplers import check_sampler
    from nas.storage import database_failures_in_one_line
    from nas.study import study_url
    from nas.training import choose_device

    if trials < 1:
        raise UserError(f"--trials must be at least 1, not {trials}")
    if patience is not None and patience < 1:
        raise UserError(f"--patience must be at least 1, not {patience}")
    if workers is not None and not 0 <= workers <= MAX_WORKERS:
        raise UserError(f"--workers is a number from 0 to {MAX_WORKERS}, not {workers}")
    progress = progress or Progress()
    deadline = None if timeout is None else time.monotonic() + timeout
    limits = Budget.of(budget, fill=fill, max_macs=max_macs, max_bytes=max_bytes)
    check_sampler(sampler)  # refuse what cannot be before anything is read or written
    devices = _devices(choose_device(device))
    changed = {
        "epochs": epochs,
        "resolution": resolution,
        "width_factor": width_factor,
        "batch_size": batch_size,
    }
    proxy_name, config = _proxy_config(proxy, changed)
    space_name, make_space = _space_maker(space, limits)
    training_data = _training_data(full_name(dataset, image_size), data)
    if resolution is None:
        config = config.model_copy(update={"resolution": training_data.at_scale(config.resolution)})
    search_space = make_space(training_data)
    _refuse_what_never_fits(search_space, limits, seed)

    name = study or _study_name(training_data.name, space_name, limits, proxy_name)
    job = Job(
        url=storage or study_url(name),
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
    )
    num_workers = len(devices) if workers is None else workers
    with database_failures_in_one_line(job.url):
        opened, database = job.open()
        progress.on_start(opened, trials, job.url)
        why = job.run(opened, database, num_workers, trials, deadline, progress)
        progress.on_end(opened, why)
    return opened


def _devices(device: str) -> tuple[str, ...]:
    """List the devices that workers share among them."""
    import torch

    if device != "cuda":
        return (device,)
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))


@dataclass(frozen=True)
class Job:
    """A search as a value: all that a worker must know, in whatever process it is.

    Attributes:
        url: The database's.
        study: The study's name.
        budget: Its limits.
        space: What is searched.
        dataset: The data set's name.
        data_root: Folder of its files.
        proxy: The schedule.
        sampler: The sampler's name.
        seed: Of the proposals.
        devices: As torch writes them; worker k has the k-th, counted round.
        trial_timeout: Seconds a trial may take, or `None`.
        patience: As in `search`.
        num_threads: Of torch in a worker; `None` leaves them as they are.
    """

    url: str
    study: str
    budget: Budget
    space: SearchSpace
    dataset: str
    data_root: str | Path
    proxy: ProxyConfig
    sampler: str
    seed: int
    devices: tuple[str, ...]
    trial_timeout: float | None
    patience: int | None = None
    num_threads: int | None = None

    def open(self) -> tuple[Study, RDBStorage]:
        """Create the study, or continue it."""
        from nas.storage import open_storage

        storage = open_storage(self.url)
        return self._open(storage), storage

    def run(
        self,
        study: Study,
        storage: RDBStorage,
        num_workers: int,
        target: int,
        deadline: float | None,
        progress: Progress,
    ) -> str:
        """Score trials up to the target, in worker processes unless there are 0 of them."""
        from functools import partial

        import torch

        from nas.parent import Parent
        from nas.register import Register

        if num_workers == 0:
            return self.work(target, deadline, 0, progress)
        is_alone = num_workers == 1 or self.devices != ("cpu",)
        job = replace(self, num_threads=torch.get_num_threads() if is_alone else 1)
        parent = Parent(
            partial(job.work, target, deadline),
            num_workers,
            study,
            Register(storage.engine, study.user_attrs["token"]),
            self.space,
            progress,
            self.trial_timeout,
        )
        return parent.run()

    def work(self, target: int, deadline: float | None, index: int, progress: Progress) -> str:
        """Be worker `index`, in this process, to the end; says why it ended."""
        import torch

        from nas.storage import database_failures_in_one_line, silence_optuna

        if self.num_threads is not None:
            silence_optuna()
            torch.set_num_threads(self.num_threads)
        with database_failures_in_one_line(self.url):
            return self._worker(index, progress).run(target, deadline)

    def _worker(self, index: int, progress: Progress) -> Worker:
        """Open the study and put the worker together."""
        from nas.objective import Objective
        from nas.proxy import ProxyData
        from nas.register import Register
        from nas.storage import open_storage
        from nas.study import claimer
        from nas.workers import Worker

        storage = open_storage(self.url)
        study = self._open(storage)
        register = Register(storage.engine, study.user_attrs["token"])
        claim = claimer(storage, register)
        study.sampler = proposer = self._proposer(claim)
        device = self.devices[index % len(self.devices)]
        data = ProxyData.prepare(self._data(), self.proxy.resolution, device)
        objective = Objective(
            self.space,
            self.budget,
            data,
            self.proxy,
            sampler_name=self.sampler,
            proposer=proposer,
            claim=claim,
            trial_timeout=self.trial_timeout,
            on_step=lambda done, total: progress.on_step(done, total, index),
            seed=self.seed,
        )
        return Worker(
            study,
            storage,
            register,
            self.space,
            objective,
            progress.on_trial_end,
            on_trial_start=lambda number: progress.on_trial_start(number, index),
            on_notice=progress.on_notice,
            patience=self.patience,
        )

    def _data(self) -> TrainingData:
        from nas.data import load_training_data

        return load_training_data(self.dataset, self.data_root)

    def _open(self, storage: RDBStorage) -> Study:
        from nas.data import SPLIT_SEED
        from nas.pruner import OverBudgetPruner
        from nas.study import identity, open_study
        from nas.training import is_even

        data = self._data()
        split = f"{len(data.train)} train, {len(data.val)} val, stratified, seed {SPLIT_SEED}"
        if not is_even(data.val.labels):
            split += "; accuracy is the mean over classes"
        wanted = identity(data.name, data.fingerprint, split, self.budget, self.proxy)
        pruner = OverBudgetPruner(self.budget.limits(self.space))
        first = baselines(self.space, self.budget)
        return open_study(storage, self.study, wanted, self.space, pruner=pruner, baselines=first)

    def _proposer(self, claim: Callable[[str, FrozenTrial], bool]) -> BudgetSampler:
        from nas.complexity import count
        from nas.samplers import make_sampler
        from nas.width_scaling import WidthScaling

        def log_costs(params: Mapping[str, Any]) -> tuple[float, float]:
            cost = count(self.space.decode(params))
            return math.log(cost.num_params), math.log(cost.num_macs)

        limits = self.budget.limits(self.space)
        scaling = WidthScaling(self.space, limits)
        return make_sampler(
            self.sampler,
            self.space.distributions,
            limits,
            features=log_costs,
            repair=scaling.repair,
            random_feasible=scaling.random_feasible,
            claim=lambda trial, params: claim(self.space.decode(params).arch_id, trial),
            seed=self.seed,
        )


def _proxy_config(name_or_file: str, changed: dict[str, Any]) -> tuple[str, ProxyConfig]:
    """Read a proxy and apply the flags; they show in its name: quick-epochs3."""
    from nas.presets import validate
    from nas.proxy import ProxyConfig

    name, config = ProxyConfig.load(name_or_file)
    changed = {key: value for key, value in changed.items() if value is not None}
    suffix = "".join(f"-{key.replace('_', '')}{value:g}" for key, value in changed.items())
    flags = ", ".join(f"--{key.replace('_', '-')}" for key in changed)
    return name + suffix, validate(ProxyConfig, config.model_dump() | changed, flags)


def _space_maker(
    name_or_file: str, budget: Budget
) -> tuple[str, Callable[[TrainingData], SearchSpace]]:
    """Read a space; what is left open are the classes, the channels and the stem."""
    from nas.architecture import Architecture, Stage
    from nas.space import SearchSpace, load_space

    name, config = load_space(name_or_file)

    def make(data: TrainingData) -> SearchSpace:
        fitted = data.fitted(Architecture((Stage(1, 1),)))
        return SearchSpace.from_config(
            config,
            max_params=budget.max_params,
            num_classes=fitted.num_classes,
            in_channels=fitted.in_channels,
            stem_stride=fitted.stem_stride,
        )

    return name, make


def _training_data(name: str, root: str | Path) -> TrainingData:
    from nas.data import load_training_data

    return load_training_data(name, root)


def _study_name(dataset: str, space: str, budget: Budget, proxy: str) -> str:
    from nas.budget import budget_name
    from nas.data import short_name

    return f"{short_name(dataset)}-{space}-{budget_name(budget.max_params)}-{proxy}"


def _refuse_what_never_fits(space: SearchSpace, budget: Budget, seed: int) -> None:
    """Refuse a budget no network of the space can meet, before anything is written."""
    from random import Random

    from nas.budget import COSTS
    from nas.errors import UserError
    from nas.width_scaling import WidthScaling

    for name, (minimum, maximum) in budget.bounds.items():
        cost = COSTS[name]
        smallest, largest = space.corner(min, cost), space.corner(max, cost)
        if cost(smallest) > maximum:
            raise UserError(
                f"no network of the space has {name} of at most {maximum:,}; the smallest "
                f"({smallest}) has {cost(smallest):,}"
            )
        if cost(largest) < (minimum or 0):
            raise UserError(
                f"no network of the space has {name} of at least {minimum:,}; the largest "
                f"({largest}) has {cost(largest):,}; lower --budget or --fill"
            )
    scaling = WidthScaling(space, budget.limits(space))
    if scaling.random_feasible(Random(seed)) is None:
        seen = scaling.region.describe_seen()
        raise UserError(f"no network within all limits was found; seen: {seen}")


def baselines(space: SearchSpace, budget: Budget) -> dict[str, Architecture]:
    """Give the hand-made networks within the limits, or ResNet26_97 scaled to them."""
    from dataclasses import replace

    from nas.presets import hand_made

    networks = {
        name: replace(
            arch,
            num_classes=space.num_classes,
            in_channels=space.in_channels,
            stem_stride=space.stem_stride,
        )
        for name, arch in hand_made().items()
    }
    if fitting := {name: arch for name, arch in networks.items() if budget.admits(arch)}:
        return fitting
    factors = (k / 1000 for k in range(3000, 0, -1))
    scaled = (networks["ResNet26_97"].scaled(factor) for factor in factors)
    best = next((arch for arch in scaled if budget.admits(arch)), None)
    return {} if best is None else {"ResNet26_97 scaled": best}
