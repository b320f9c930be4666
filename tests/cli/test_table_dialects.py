"""Tables as people have them: counting programs, GEO, R, Excel, and 10x."""

from __future__ import annotations

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

from batchcorr.cli.dialects import Given, Style, read_start
from batchcorr.cli.files import ending
from batchcorr.cli.samples import Source
from batchcorr.cli.tables import read_texts
from batchcorr.errors import FileError, InputError
from tests.cli.commands import done, names_in, read, read_numbers, refused

SAMPLES = [f"S{i}" for i in range(6)]
COUNTS = pd.DataFrame(
    np.arange(24).reshape(4, 6) * 7 + 1, [f"g{i}" for i in range(4)], SAMPLES
)
LOGS = np.log2(COUNTS + 1)


@pytest.fixture
def sheet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(
        {"sample": SAMPLES, "day": list("ababab"), "age": [20.5, 31, 42, 53, 64, 75]}
    )
    frame.to_csv("sheet.csv", index=False)
    return frame


def opened(path, folder, **options):
    """What a table holds, and how it was written."""
    path = folder / path
    return Source(path, ending(path), folder / "sheet.csv", **options).open()


def of_feature_counts(columns):
    """FeatureCounts' own file, with samples named as given."""
    table = COUNTS.set_axis(columns, axis=1)
    more = {"Chr": "1;1", "Start": "11;21", "End": 29, "Strand": "+;+", "Length": 18}
    for place, (name, value) in enumerate(more.items()):
        table.insert(place, name, value)
    program = '# Program:featureCounts v2.0.1; Command:"featureCounts" "-a" "x.gtf"\n'
    return program + table.to_csv(sep="\t", index_label="Geneid")


@pytest.mark.usefixtures("sheet")
@pytest.mark.parametrize("folder", ["", "/data/run 1/"])
def test_feature_counts(tmp_path, capsys, folder):
    columns = [f"{folder}{name}.bam" if folder else name for name in SAMPLES]
    (tmp_path / "fc.txt").write_text(of_feature_counts(columns))
    adata, layout = opened("fc.txt", tmp_path)
    np.testing.assert_array_equal(adata.X, COUNTS.T)
    assert adata.X.dtype == np.int64
    assert list(adata.obs_names) == SAMPLES
    assert list(adata.var["Strand"]) == ["+;+"] * 4
    assert layout.style == Style("\t", "Geneid", ending=".txt")
    assert "the columns Chr, Start, End, Strand, Length of" in capsys.readouterr().err


@pytest.mark.usefixtures("sheet")
def test_columns_of_gene_names_are_annotation(tmp_path, capsys):
    table = COUNTS.copy()
    table.insert(0, "gene_name", ["TP53", "KRAS", None, "2-Mar"])
    table.to_csv(tmp_path / "salmon.tsv", sep="\t", index_label="gene_id")
    adata, _ = opened("salmon.tsv", tmp_path)
    np.testing.assert_array_equal(adata.X, COUNTS.T)
    assert list(adata.var["gene_name"])[:2] == ["TP53", "KRAS"]
    assert "the columns gene_name of" in capsys.readouterr().err


@pytest.mark.usefixtures("sheet")
@pytest.mark.parametrize("in_columns", [True, False])
@pytest.mark.parametrize("names", [["__no_feature", "__ambiguous"], ["N_unmapped"]])
def test_reads_of_no_gene_are_no_genes(tmp_path, capsys, names, in_columns):
    more = pd.DataFrame(9999, names, SAMPLES)
    table = pd.concat([more, COUNTS])
    (table if in_columns else table.T).to_csv(tmp_path / "t.csv")
    adata, _ = opened("t.csv", tmp_path)
    np.testing.assert_array_equal(adata.X, COUNTS.T)
    assert list(adata.var_names) == list(COUNTS.index)
    assert f"{', '.join(names)} of" in capsys.readouterr().err


def series(table, rows=True):
    """A series matrix of GEO."""
    start = '!Series_title\t"x, y"\n!Sample_title\t"a"\t"b"\n\n'
    lines = table.to_csv(sep="\t", quoting=2, index_label="ID_REF").splitlines(True)
    whole = "".join(lines if rows else lines[:1])
    return f"{start}!series_matrix_table_begin\n{whole}!series_matrix_table_end\n"


@pytest.mark.usefixtures("sheet")
def test_geo_series_matrix(tmp_path):
    (tmp_path / "s.txt.gz").write_bytes(gzip.compress(series(LOGS).encode()))
    adata, _ = opened("s.txt.gz", tmp_path)
    np.testing.assert_array_equal(adata.X, LOGS.T)
    (tmp_path / "c.txt").write_text(series(COUNTS))
    assert opened("c.txt", tmp_path)[0].X.dtype == np.int64
    (tmp_path / "none.txt").write_text(series(LOGS, rows=False))
    with pytest.raises(FileError, match="no row after its header"):
        opened("none.txt", tmp_path)
    (tmp_path / "soft.txt").write_text('!Series_title\t"x"\n!Series_type\t"y"\n')
    with pytest.raises(FileError, match=r"GEO file without a table.*series matrix"):
        opened("soft.txt", tmp_path)


@pytest.mark.usefixtures("sheet")
@pytest.mark.parametrize("name", ["t.csv", "t.txt"])
def test_semicolons_and_decimal_commas(tmp_path, name):
    LOGS.to_csv(tmp_path / name, sep=";", decimal=",")
    adata, layout = opened(name, tmp_path)
    np.testing.assert_array_equal(adata.X, LOGS.T)
    assert (layout.style.separator, layout.style.decimal) == (";", ",")
    done("correct", name, f"out_{name}", "--samples", "sheet.csv", "--batch", "day")
    done("correct", name, "out.tsv", "--samples", "sheet.csv", "--batch", "day")
    whole = pd.read_csv(tmp_path / f"out_{name}", sep=";", decimal=",", index_col=0)
    other = pd.read_csv(tmp_path / "out.tsv", sep="\t", decimal=",", index_col=0)
    pd.testing.assert_frame_equal(whole, other)
    assert np.isfinite(whole.to_numpy(float)).all()


def test_decimals_and_thousands_are_not_guessed(tmp_path):
    (tmp_path / "t.csv").write_text("g;a;b\nx;1,234;5\n")
    with pytest.raises(InputError, match=r"'1,234'.* may be .*--decimal"):
        read_numbers(tmp_path / "t.csv")
    cells = read_numbers(tmp_path / "t.csv", decimal=",").cells
    np.testing.assert_array_equal(cells, [[1.234, 5]])
    (tmp_path / "t.csv").write_text("g;a;b\nx;1,5;2.5\n")
    with pytest.raises(InputError, match=r"contains '2\.5'.*--decimal"):
        read_numbers(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("g;a;b\nx;1.234,5;2\n")
    with pytest.raises(InputError, match=r"contains '1\.234,5'.*--decimal"):
        read_numbers(tmp_path / "t.csv")


def test_what_separates_fields(tmp_path):
    path = tmp_path / "t.csv"
    for text, wanted in (
        ('a;"b,c";d\nx;1;2\n', ";"),
        ("g\ta,b\tc\nx\t1\t2\n", "\t"),
        ("sep=;\ng;a\nx;1\n", ";"),
        ("# a comment, of; all\n\ng,a;b,c\nx,1,2\n", ","),
        ("#OTU ID,a,b\nx,1,2\n", ","),
    ):
        path.write_text(text)
        assert read_start(path, None).separator == wanted
    assert read_start(path, None).header == ["#OTU ID", "a", "b"]
    path.write_text("a;b,c;d\nx;1,2;3\n")
    with pytest.raises(
        FileError, match="by commas and by semicolons: give the separator with"
    ):
        read_start(path, None)
    path.write_text("g|a|b\nx|1|2\n")
    np.testing.assert_array_equal(read_numbers(path, separator="|").cells, [[1, 2]])
    assert list(read_texts(path, Given("|")).columns) == ["a", "b"]


def test_a_sheet_with_row_numbers_in_front(tmp_path, sheet, capsys):
    LOGS.to_csv("t.csv")
    sheet.set_axis(range(1, 7)).to_csv("sheet.csv", index_label="")
    adata, _ = opened("t.csv", tmp_path)
    assert list(adata.obs["day"]) == list("ababab")
    assert "in its column 'sample'" in capsys.readouterr().err
    sheet.assign(sample=range(6), name=SAMPLES, other=SAMPLES).to_csv("sheet.csv")
    command = ["correct", "t.csv", "o.csv", "--samples", "sheet.csv", "--batch", "day"]
    assert (
        "'name', 'other'. Give the column of sample names with --sample-column"
        in refused(*command)
    )
    done(*command, "--sample-column", "other")
    line = refused(*command, "--force", "--sample-column", "nmae")
    assert "'nmae' is not a column of sheet.csv. Did you mean 'name'" in line
    assert "row 2" in refused_without_name(sheet, command)


def refused_without_name(sheet, command):
    sheet.assign(sample=["S0", None, *SAMPLES[2:]]).to_csv("sheet.csv")
    return refused(*command, "--force", "--sample-column", "sample")


def test_what_excel_leaves(tmp_path, sheet):
    text = sheet.astype(str).assign(sample=[f"{name} " for name in SAMPLES])
    text = text.to_csv(index=False).replace("31.0", "#N/A").replace("\n", ",,\n")
    (tmp_path / "sheet.csv").write_text(text + ",,,,\n,,,,\n")
    wide = COUNTS.rename(index={"g1": " g1 "}).to_csv(sep="\t") + "\t" * 6 + "\n"
    (tmp_path / "t.txt").write_bytes(wide.replace("\n", "\r\n").encode("utf-16"))
    adata, _ = opened("t.txt", tmp_path)
    np.testing.assert_array_equal(adata.X, COUNTS.T)
    assert adata.X.dtype == np.int64
    assert list(adata.var_names) == ["g0", "g1", "g2", "g3"]
    assert list(adata.obs.columns) == ["day", "age"]
    np.testing.assert_array_equal(adata.obs["age"], [20.5, np.nan, 42, 53, 64, 75])


def test_numbers_of_a_european_sheet(tmp_path, sheet):
    LOGS.to_csv("t.csv")
    sheet.assign(kit=["1,5", "A"] * 3).to_csv(
        "sheet.csv", index=False, sep=";", decimal=","
    )
    adata, _ = opened("t.csv", tmp_path)
    assert list(adata.obs["age"]) == list(sheet["age"])
    assert list(adata.obs["kit"]) == ["1,5", "A"] * 3


@pytest.fixture
def tenx(tmp_path, sheet):
    """Counts of Cell Ranger, as an .h5 file and as a folder."""
    x = sp.csc_matrix(np.random.default_rng(0).poisson(2, (5, 6)))  # genes × cells
    ids, symbols = [f"ENSG{i}" for i in range(5)], ["A", "B", "B", "C", "D"]
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(x, name)
        group["shape"] = np.array(x.shape)
        group["barcodes"] = np.array(SAMPLES, dtype="S")
        for name, values in (
            ("id", ids),
            ("name", symbols),
            ("feature_type", ["Gene Expression"] * 5),
            ("genome", ["x"] * 5),
        ):
            group[f"features/{name}"] = np.array(values, dtype="S")
    folder = tmp_path / "cells"
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", x)
    for name, frame in (
        ("features", pd.DataFrame([ids, symbols, ["Gene Expression"] * 5]).T),
        ("barcodes", pd.DataFrame(SAMPLES)),
        ("matrix", None),
    ):
        suffix = "mtx" if frame is None else "tsv"
        path = folder / f"{name}.{suffix}.gz"
        if frame is None:
            path.write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
        else:
            frame.to_csv(path, sep="\t", header=False, index=False)
    (folder / "matrix.mtx").unlink()
    return anndata.AnnData(x.T.toarray(), obs=sheet.set_index("sample"))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("source", ["cells.h5", "cells"])
def test_counts_of_cell_ranger(tmp_path, tenx, source):
    command = ["correct", source, "out.h5ad", "--batch", "day"]
    assert "10x matrix, which has no batches" in refused(*command, code=2)
    more = ["--samples", "sheet.csv", "--memory", "1GiB"]
    assert "--memory: cells" in refused(*command, *more, code=2)
    said = done(*command, "--samples", "sheet.csv", "--method", "combat_seq")
    assert "same symbol" in said.stderr
    found = read(tmp_path / "out.h5ad")
    assert list(found.var_names) == ["A", "B", "B-1", "C", "D"]
    assert list(found.obs["day"]) == list(tenx.obs["day"])
    adata, _ = opened(source, tmp_path)
    np.testing.assert_array_equal(adata.X.toarray(), tenx.X)
    (tmp_path / "cells.h5").write_bytes(b"nothing")
    if source == "cells.h5":
        line = refused(
            "fit", source, "c.npz", "--samples", "sheet.csv", "--batch", "day"
        )
        assert "cells.h5 cannot be read: it is no matrix of Cell Ranger" in line
        assert "c.npz" not in names_in(tmp_path)


@pytest.mark.usefixtures("sheet")
@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--sep", "ab"], "--sep: give one character"),
        (["--decimal", ";"], "--decimal: the decimal mark is . or ,"),
        (["--sep", "comma", "--decimal", ","], "cannot separate both"),
    ],
)
def test_separators_that_are_none(options, match):
    LOGS.to_csv("t.csv")
    command = ["correct", "t.csv", "o.csv", "--samples", "sheet.csv", "--batch", "day"]
    assert match in refused(*command, *options, code=2)
