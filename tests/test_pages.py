"""What README and docs tell people to type runs: Python by the page, commands one by one.

Each block runs in a namespace that holds the names which its page takes for granted. What cannot run here is named, with its reason, and what runs it instead.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

import batchcorr as bc
from batchcorr.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "timm.create_model": "timm's weights are downloaded; tests/bridge/test_fold_models.py",
    "torchvision.models": "weights are downloaded; tests/bridge/test_fold_models.py",
    "from_pretrained": "weights are downloaded; tests/bridge/test_fold_models.py",
    "training_step": "Lightning is no requirement",
    "pydeseq2": "PyDESeq2 is no requirement",
    "batchcorr bridge": "tests/bridge/test_claims.py",
    "filtered_feature_bc_matrix": "tests/cli/test_table_dialects.py",
    "pip install": ".ci/run",
    "python -m pytest": "this is it",
    "head -3": "shows a file",
}

TOGETHER = ("figures", "testing")
"""Pages whose blocks go on from one another."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning"),
    pytest.mark.filterwarnings("ignore:Transforming to str index"),
]


def blocks(page, *languages):
    """The text of a page's blocks of code in these languages."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [code for language, code in found if language in languages]


def runs_here(code):
    return not any(word in code for word in ELSEWHERE)


def samples(seed=0, n=72, genes=40):
    """Counts with all the columns that the pages speak of."""
    rng = np.random.default_rng(seed)
    batch = np.resize(["site1", "site2", "site3"], n)
    group = rng.permutation(
        np.resize(["a", "b", "ill", "well", "treated", "control"], n)
    )
    depth = np.where(batch == "site2", 30, 60)[:, None] * rng.uniform(0.5, 2, genes)
    counts = rng.negative_binomial(8, 8 / (8 + depth)).astype(float)
    obs = pd.DataFrame(
        {
            "batch": batch,
            "run": batch,
            "day": batch,
            "site": rng.permutation(np.resize(["site1", "site2"], n)),
            "group": group,
            "condition": group,
            "cancer": group,
            "cell_type": rng.permutation(np.resize(["T", "B", "NK"], n)),
            "rin": rng.uniform(5, 9, n),
            "age": rng.normal(50, 9, n),
            "sex": rng.choice(["f", "m"], n),
        },
        index=[f"s{i}" for i in range(n)],
    )
    var = pd.DataFrame(index=[f"gene{j}" for j in range(genes)])
    return AnnData(counts, obs, var)


def common(code):
    """The names that code about tables of expression takes for granted."""
    counts, logs, new = samples(), samples(), samples(seed=3)
    new.obs["batch"] = np.resize(["n1", "n2"], new.n_obs)
    bc.pp.log_normalize(logs)
    bc.pp.log_normalize(new)
    logs.layers["logs"] = logs.X.copy()
    if "bc.pl." in code:
        bc.tl.pca(logs, "batch", n_comps=2, key_added="after")
        logs.obsm["before"] = logs.obsm["after"]
        bc.pp.combat(logs, "batch", covariates=["cell_type"], key_added="corrected")
    from_counts = "log_normalize(" in code or "combat_seq(" in code
    adata = counts if from_counts else logs
    return {"bc": bc, "adata": adata, "train": logs, "test": logs.copy(), "new": new}


def hidden():
    """Arrays with batches that are not told."""
    adata = bc.datasets.bladder()[:, :300].copy()
    return {"bc": bc, "adata": adata, "new_samples": adata.X[:5]}


def sites():
    """Write the sums of three hospitals into the working folder; their names."""
    adata = samples(n=240)
    bc.pp.log_normalize(adata)
    rng = np.random.default_rng(1)
    adata.obs["sex"] = rng.choice(["f", "m"], adata.n_obs)
    adata.obs["tissue"] = rng.choice(["normal", "tumour"], adata.n_obs)
    schema = bc.sites.make_schema(
        adata, "batch", covariates=["sex", "tissue"], units="log counts"
    )
    files = []
    for batch, town in zip(
        ["site1", "site2", "site3"], ["oslo", "lyon", "bonn"], strict=True
    ):
        rows = adata[adata.obs["batch"] == batch].copy()
        bc.sites.moments(rows, schema).save(f"{town}.npz")
        files.append(f"{town}.npz")
    return files


def networks():
    """The names that pages about the bridge take for granted."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 3),
    )
    x, y = torch.randn(64, 6), torch.arange(64) % 3
    data = torch.utils.data.TensorDataset(x, y)
    source = torch.utils.data.DataLoader(data, batch_size=32)
    return {
        "bridge": bc.bridge,
        "model": model,
        "batch": (x, y),
        "inputs": x,
        "few_samples": x[:8] + 1,
        "loader": [x],
        "domains": np.resize(["site1", "site2"], len(x)),
        "source_loader": source,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
        "loss": lambda network, batch: torch.nn.functional.cross_entropy(
            network(batch[0]), batch[1]
        ),
        "torch": torch,
    }


def namespace(page, code):
    """Everything that a block of a page takes for granted."""
    if page.stem == "sites":
        return {"bc": bc, "files": sites()}
    if page.stem == "unknown_batches":
        return hidden()
    if page.stem == "figures":
        return {"bc": bc}
    if "bridge." in code:
        return {"bc": bc} | networks()
    return common(code) | {"classifier": LogisticRegression()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_on_the_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    typed = [code for code in blocks(page, "python") if runs_here(code)]
    if page.stem in TOGETHER:
        typed = ["\n".join(typed)]
    for code in typed:
        exec(compile(code, page.name, "exec"), namespace(page, code))


def write_files():
    """The files that commands on the pages read, in the working folder."""
    counts, logs = samples(), samples()
    bc.pp.log_normalize(logs)
    for name in ("in", "train", "test"):
        logs.write_h5ad(f"{name}.h5ad")
    logs.to_df().T.to_csv("genes.csv")
    sheet = counts.obs.rename_axis("sample")
    sheet.to_csv("sheet.csv")
    table = counts.to_df().T.astype(int).rename_axis("Geneid")
    for column in ("Length", "Strand", "End", "Start", "Chr"):
        table.insert(0, column, "+" if column == "Strand" else 1)
    table.to_csv("counts.txt", sep="\t")
    table.to_csv("later.txt", sep="\t")
    sheet.to_csv("later_sheet.csv")
    for number, name in enumerate(sites()):
        Path(name).rename(f"site{number}.npz")


def commands(page):
    """The commands of a page, a line each; those in sites.md are indented."""
    text = "\n".join(blocks(page, "", "console")).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?(batchcorr .*)$", text, flags=re.M)
    return [line.split("#")[0].strip() for line in lines]


@pytest.mark.parametrize("page", [PAGES[0], ROOT / "docs" / "command_line.md"])
def test_commands_on_the_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files()
    typed = [line for line in commands(page) if runs_here(line)]
    assert len(typed) >= 5
    for line in typed:
        words = []
        for word in shlex.split(line)[1:]:
            words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
        for target in ("out.h5ad", "correction.npz"):
            if target in words[2:] and Path(target).exists():
                Path(target).unlink()
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}\n{result.output}"
