"""Fuzzing: random inputs of many kinds, against references that are slow and plain.

    python benchmarks/fuzz.py --cases 10000 --seed 0
    python benchmarks/fuzz.py --only 4711            # one case again, with its traceback

A case is a fault if its result is not the reference's, if the package gives a result
where there is none, refuses what has one, ends in an error or a warning that is not its
own, changes what it was given, or makes finite values infinite. The exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict

import numpy as np
from fuzzing import corrections, files, measures, relatives
from fuzzing.compare import Fault, Skipped
from fuzzing.reference import Refused

from batchcorr.errors import BatchCorrError, BatchCorrWarning

KINDS = {
    "estimators": (corrections.of_estimator, 26),
    "pp on AnnData": (corrections.of_anndata, 22),
    "save, load, transform": (corrections.of_saved, 10),
    "partial_fit in blocks": (corrections.of_blocks, 10),
    "add_batches": (corrections.of_joining, 4),
    "damaged files": (files.damaged, 10),
    "log_normalize": (measures.logarithms, 4),
    "quantile_normalize": (measures.quantiles, 4),
    "variance_explained": (measures.share, 4),
    "tl.differential": (measures.differential, 7),
    "combat_seq": (measures.count_methods, 2),
    "ComBatSeq(reference)": (relatives.of_count_reference, 2),
    "CovBat": (relatives.of_covariances, 4),
    "subject=": (relatives.of_subjects, 3),
    "missing=": (relatives.of_missing_labels, 4),
    "obsm=": (relatives.of_embedding, 3),
    "surrogate variables": (relatives.of_hidden_batches, 5),
    "command line": (files.command, 5),
}
"""What is tried, and how often."""

# -- running ----------------------------------------------------------------------------


def run(number, seed, *, loud=False):
    """One case: its kind, what came of it, the traits of its input, and what is wrong."""
    rng = np.random.default_rng([seed, number])
    share_of = np.array([weight for _, weight in KINDS.values()], dtype=float)
    kind = str(rng.choice(list(KINDS), p=share_of / share_of.sum()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            traits, outcome, why = KINDS[kind][0](rng), "agreed", ""
        except (Skipped, Refused):
            return kind, "not compared", set(), ""
        except BatchCorrError as error:
            traits, outcome, why = getattr(error, "traits", set()), "refused", ""
            if not str(error).strip():
                outcome, why = "fault", "an error without a message"
            elif not getattr(error, "due", True):
                outcome, why = "fault", f"refused without a reason: {error}"
        except Exception as error:  # noqa: BLE001 - what is not the package's own
            traits, outcome = set(), "fault"
            why = f"{type(error).__name__}: {error}"
            if not isinstance(error, Fault):
                why += "\n" + "".join(
                    traceback.format_exception(error)[-30 if loud else -2 :]
                )
    foreign = [w for w in caught if not issubclass(w.category, BatchCorrWarning)]
    if foreign and outcome != "fault":
        outcome, why = "fault", f"{foreign[0].category.__name__}: {foreign[0].message}"
        why += f" ({foreign[0].filename}:{foreign[0].lineno})"
    return kind, outcome, traits, why


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone")
    asked = parser.parse_args()
    numbers = (
        range(asked.start, asked.start + asked.cases)
        if asked.only is None
        else [asked.only]
    )
    kinds, traits, faults = defaultdict(Counter), defaultdict(Counter), 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number in numbers:
            loud = asked.only is not None
            kind, outcome, about, why = run(number, asked.seed, loud=loud)
            kinds[kind][outcome] += 1
            for trait in about:
                traits[trait][outcome] += 1
            if why:
                faults += 1
                print(f"case {number}, {kind}: {why}", flush=True)
        os.chdir("/")
    for title, counts in (("kind", kinds), ("input", traits)):
        print(
            f"\n{title:34}{'cases':>7}{'agreed':>8}{'refused':>9}{'faults':>8}  not compared"
        )
        for name in KINDS if counts is kinds else sorted(counts):
            of = counts[name]
            print(
                f"{name:34}{of.total():7}{of['agreed']:8}{of['refused']:9}"
                f"{of['fault']:8}{of['not compared']:8}"
            )
    total = sum((of for of in kinds.values()), Counter())
    print(
        f"\n{total.total()} cases in {time.perf_counter() - start:.0f} s: {dict(total)}"
    )
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
