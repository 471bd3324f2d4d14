"""Fixtures: a folder to search in, and the smallest search that is one."""

from __future__ import annotations

import dataclasses
import os
import secrets
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from sqlalchemy import create_engine, text
from tiny_search import ON_FILES, PROXY, SPACE

import nas
from nas.complexity import count
from nas.data import load_training_data
from nas.data_sets import DATASETS
from nas.find_study import study_url
from nas.register import Register
from nas.space import SearchSpace
from nas.split import Split
from nas.storage import open_storage, sqlite_url
from nas.study import open_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from optuna.study import Study
    from sqlalchemy.engine import Engine

    from nas.architecture import Architecture

# On a busy machine an example may take any time; none of these tests is about time.
settings.register_profile(
    "busy", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Bitwise comparisons need a fixed number of threads; small networks are fastest on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def migrations() -> Iterator[None]:
    """Optuna reads its migrations anew for each database that it opens; once a process will do."""
    manager = optuna.storages._rdb.storage._VersionManager
    create, scripts = manager._create_alembic_script, []

    def create_once(self: Any) -> Any:
        if not scripts:
            scripts.append(create(self))
        return scripts[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager, "_create_alembic_script", create_once)
        yield


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> None:
    """A shell lets background processes, and their children, ignore Ctrl-C; these tests send it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one during the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL_SPACE = SearchSpace(
    tuple(
        {
            "depth": range(1, 5),
            "width": range(4, 65, 4),
            "kernel_size": range(3, 6, 2),
            "shortcut_kernel_size": (1,),
            "block": ("basic",),
        }
        for _ in range(2)
    )
)


@pytest.fixture
def scored(folder: Path) -> Callable[..., Study]:
    """A study of networks with scores that nobody had to train for."""

    def make(*archs: Architecture, name: str = "mine", url: str | None = None) -> Study:
        storage = open_storage(url or study_url(name))
        wanted = {"data": "synthetic", "limits.num_params": [None, 100_000]}
        wanted |= {"proxy.peak_lr": 0.4, "proxy.epochs": 2, "proxy.resolution": 16}
        pruner = optuna.pruners.NopPruner()
        study = open_study(storage, name, wanted, SMALL_SPACE, pruner=pruner, baselines={})
        register = Register(storage.engine, study.user_attrs["token"])
        for number, arch in enumerate(archs):
            cost = count(arch)
            attrs = {"architecture_json": arch.to_json(), "arch_id": arch.arch_id}
            described = {"architecture": str(arch), "num_params": cost.num_params}
            described["num_macs"] = cost.num_macs
            study.add_trial(
                optuna.create_trial(value=0.5 + number / 100, user_attrs=attrs | described)
            )
            register.claim(arch.arch_id, number, is_void=lambda _owner: True)
        return study

    assert folder.is_dir()
    return make


@pytest.fixture
def server() -> Iterator[Engine]:
    """A PostgreSQL server, as one who may make databases."""
    if not (server := os.environ.get("NAS_POSTGRES")):
        pytest.skip("NAS_POSTGRES names no PostgreSQL server")
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_url(server: Engine) -> Iterator[str]:
    """The URL of an empty database of that server."""
    name = f"nas_test_{secrets.token_hex(6)}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: an SQLite file, and a database of a PostgreSQL server."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "s.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def parts() -> dict[str, Split]:
    """A fifth of the synthetic data set."""
    read = DATASETS["synthetic"].read
    whole = {part: read(Path(), part) for part in ("train", "test")}
    counts = {"train": 2_000, "test": 400}
    return {
        part: Split(split.images[: counts[part]], split.labels[: counts[part]])
        for part, split in whole.items()
    }


@pytest.fixture(scope="session")
def few_files(parts: dict[str, Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as image files, which other processes have too."""
    root = tmp_path_factory.mktemp("few", numbered=False)  # studies are named after it
    for part, split in parts.items():
        for label in range(10):
            (root / part / f"pair-{label}").mkdir(parents=True)
        pairs = zip(split.images, split.labels.tolist(), strict=True)
        for number, (image, label) in enumerate(pairs):
            pixels = image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / part / f"pair-{label}" / f"{number}.png")
    return root


@pytest.fixture
def tiny_whole(folder: Path) -> Callable[..., Study]:
    """`nas.search` with a schedule of one epoch at 8 pixels in a space of two stages."""
    (folder / "studies" / "proxies").mkdir(parents=True)
    (folder / "studies" / "proxies" / "tiny.toml").write_text(PROXY)
    (folder / "studies" / "spaces").mkdir()
    (folder / "studies" / "spaces" / "tiny.toml").write_text(SPACE)
    return partial(
        nas.search,
        3_000,
        dataset="synthetic",
        space="tiny",
        proxy="tiny",
        device="cpu",
        workers=0,
    )


@pytest.fixture
def tiny(
    tiny_whole: Callable[..., Study], parts: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Study]]:
    """The same on few images, in this process alone."""
    few = dataclasses.replace(DATASETS["synthetic"], read=lambda _root, part: parts[part])
    monkeypatch.setitem(DATASETS, "synthetic", few)
    load_training_data.cache_clear()
    yield tiny_whole
    load_training_data.cache_clear()


@pytest.fixture
def tiny_files(tiny_whole: Callable[..., Study], few_files: Path) -> Callable[..., Study]:
    """The same on few images, the files `few`, which other processes see too."""
    Path("few").symlink_to(few_files)
    return partial(tiny_whole, **ON_FILES)
