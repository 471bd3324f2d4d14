"""The house: imports point one way, each framework has one home, nothing stands at the top."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAS = ROOT / "nas"

# A row may use only rows above it; neighbours in a row do not use each other.
ROWS = (
    ("errors", "failures", "architecture", "pointwise", "residual", "progress", "interruption"),
    ("blocks",),
    ("presets", "synthetic", "files", "training_state", "replayed", "split"),
    ("image_folder", "checkpoint", "space_file"),
    ("image_cache",),
    ("data_sets",),
    ("space", "data", "distributed", "register", "outages", "encoding", "warping"),
    ("complexity", "model", "batches", "image_ops", "gaussian_process", "sheet", "sheet_numbers"),
    ("zero_cost", "training", "surrogate", "feasible", "study_view", "augmentation", "sheet_rows"),
    ("proposed",),
    ("budget_sampler", "surrogate_sampler", "evaluation"),
    ("samplers", "pruner", "width_scaling", "proxy", "recipe", "saved_model", "learning_curve"),
    ("storage", "provenance", "budget", "full_training", "formats", "distance", "trials"),
    ("study", "find_study", "copying", "retrain_progress"),
    ("transaction",),
    ("objective", "sisters", "notes", "standings", "deletion"),
    ("workers", "retrain_record", "assignment", "analysis"),
    ("history",),
    ("results", "ledger", "retraining", "parent"),
    ("report", "doctor", "finalists"),
    ("dashboard", "plan"),
    ("search", "preview", "retrain"),
    ("cli", "__init__"),
    ("__main__",),
)
ROW_OF = {name: index for index, row in enumerate(ROWS) for name in row}

HOMES = {
    "optuna": {
        "space",
        "encoding",
        "feasible",
        "study_view",
        "budget_sampler",
        "proposed",
        "surrogate_sampler",
        "samplers",
        "pruner",
        "outages",
        "storage",
        "trials",
        "study",
        "find_study",
        "sisters",
        "objective",
        "workers",
        "parent",
        "doctor",
        "finalists",
        "notes",
        "history",
        "standings",
        "deletion",
        "ledger",
        "preview",
    },
    "optuna_dashboard": {"dashboard", "notes"},
    "safetensors": {"checkpoint", "saved_model", "formats"},
    "sqlalchemy": {"storage", "outages", "register", "copying", "transaction", "deletion"},
    "torchvision": {"data_sets"},
    "jinja2": {"report"},
    "scipy": {"gaussian_process"},
    "plotly": {"report", "learning_curve"},
    "pandas": {"results", "ledger", "analysis", "sheet"},
    "typer": {"cli"},
    "rich": {"cli"},
}
DISTRIBUTIONS_ONLY = {"space", "feasible", "encoding"}


def modules() -> list[Path]:
    return sorted(NAS.rglob("*.py"))


def module_name(path: Path) -> str:
    return path.relative_to(NAS).parts[0].removesuffix(".py")


def imports(path: Path, *, with_types: bool) -> set[str]:
    """Dotted names that a file imports, those under `if TYPE_CHECKING:` only on request."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if not with_types:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped.update(child for line in node.body for child in ast.walk(line))
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(NAS)))
def test_imports_point_one_way(path: Path) -> None:
    own = module_name(path)
    for imported in imports(path, with_types=True):
        parts = imported.split(".")
        if parts[0] != "nas" or len(parts) == 1 or parts[1] not in ROW_OF or parts[1] == own:
            continue
        assert ROW_OF[parts[1]] < ROW_OF[own], f"{own} uses {parts[1]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(NAS)))
def test_each_framework_has_one_home(path: Path) -> None:
    own = module_name(path)
    for imported in imports(path, with_types=False):
        framework = imported.split(".")[0]
        if framework == "optuna" and own == "results":
            named = ("optuna.trial", "optuna.importance")
            assert imported.startswith(named), "results names trial states and asks for importances"
            continue
        assert own in HOMES.get(framework, {own}), f"{own} imports {imported}"
        if framework == "optuna" and own in DISTRIBUTIONS_ONLY:
            assert imported.startswith("optuna.distributions"), f"{own} imports {imported}"


def test_every_module_has_its_row() -> None:
    assert {module_name(path) for path in modules()} <= ROW_OF.keys()


def test_printing_is_left_to_the_commands() -> None:
    for path in modules():
        if module_name(path) != "cli":
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
            assert "print" not in names, path


def test_only_what_is_meant_to_be_there_stands_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    allowed = {"nas", "studies", "tests", "benchmarks", "docs", "search.py", "retrain.py"}
    allowed |= {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_importing_nas_imports_no_torch_and_no_optuna() -> None:
    code = "import nas, nas.cli, sys; print({'torch', 'optuna', 'pandas'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
