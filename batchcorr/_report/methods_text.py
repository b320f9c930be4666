"""A paragraph for the methods section of a paper, and what it cites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.errors import some

if TYPE_CHECKING:
    from batchcorr._anndata.records import Record

__all__ = ["SIZE_FACTORS", "method_name", "methods_text"]

REFERENCES = {
    "johnson": "Johnson WE, Li C, Rabinovic A (2007). Adjusting batch effects in "
    "microarray expression data using empirical Bayes methods. Biostatistics "
    "8:118-127. doi:10.1093/biostatistics/kxj037",
    "zhang": "Zhang Y, Parmigiani G, Johnson WE (2020). ComBat-seq: batch effect "
    "adjustment for RNA-seq count data. NAR Genomics and Bioinformatics 2:lqaa078. "
    "doi:10.1093/nargab/lqaa078",
    "chen": "Chen AA, Beer JC, Tustison NJ, Cook PA, Shinohara RT, Shou H (2022). "
    "Mitigating site effects in covariance for machine learning in neuroimaging data. "
    "Human Brain Mapping 43:1179-1195. doi:10.1002/hbm.25688",
    "limma": "Ritchie ME, Phipson B, Wu D, Hu Y, Law CW, Shi W, Smyth GK (2015). limma "
    "powers differential expression analyses for RNA-sequencing and microarray "
    "studies. Nucleic Acids Research 43:e47. doi:10.1093/nar/gkv007",
    "smyth": "Smyth GK (2004). Linear models and empirical Bayes methods for assessing "
    "differential expression in microarray experiments. Statistical Applications in "
    "Genetics and Molecular Biology 3:3. doi:10.2202/1544-6115.1027",
    "law": "Law CW, Chen Y, Shi W, Smyth GK (2014). voom: precision weights unlock "
    "linear model analysis tools for RNA-seq read counts. Genome Biology 15:R29. "
    "doi:10.1186/gb-2014-15-2-r29",
    "benjamini": "Benjamini Y, Hochberg Y (1995). Controlling the false discovery rate: "
    "a practical and powerful approach to multiple testing. Journal of the Royal "
    "Statistical Society B 57:289-300. doi:10.1111/j.2517-6161.1995.tb02031.x",
    "nygaard": "Nygaard V, Rødland EA, Hovig E (2016). Methods that remove batch effects "
    "while retaining group differences may lead to exaggerated confidence in "
    "downstream analyses. Biostatistics 17:29-39. doi:10.1093/biostatistics/kxv027",
    "robinson": "Robinson MD, Oshlack A (2010). A scaling normalization method for "
    "differential expression analysis of RNA-seq data. Genome Biology 11:R25. "
    "doi:10.1186/gb-2010-11-3-r25",
    "anders": "Anders S, Huber W (2010). Differential expression analysis for sequence "
    "count data. Genome Biology 11:R106. doi:10.1186/gb-2010-11-10-r106",
    "bolstad": "Bolstad BM, Irizarry RA, Åstrand M, Speed TP (2003). A comparison of "
    "normalization methods for high density oligonucleotide array data based on "
    "variance and bias. Bioinformatics 19:185-193. "
    "doi:10.1093/bioinformatics/19.2.185",
}

CORRECTIONS = {
    "combat": ("ComBat", ["johnson"]),
    "combat_seq": ("ComBat-seq", ["zhang"]),
    "covbat": ("CovBat", ["chen", "johnson"]),
    "remove_batch_effect": ("linear removal (limma's removeBatchEffect)", ["limma"]),
    "standardize": ("standardization within batches", []),
}
"""What a method is called in a paper, and what is cited for it."""

SIZE_FACTORS = {
    "total": ("library totals", []),
    "tmm": ("TMM factors", ["robinson"]),
    "tmmwsp": ("TMM factors with singleton pairing", ["robinson"]),
    "rle": ("relative log expression", ["anders"]),
    "median_of_ratios": ("medians of ratios", ["anders"]),
    "poscounts": ("medians of ratios of positive counts", ["anders"]),
    "upperquartile": ("upper quartiles", []),
}


def method_name(record: Record) -> str:
    """What a recorded correction is called."""
    method = str(record.get("method"))
    return CORRECTIONS.get(method, (method, []))[0]


class Citations:
    """References in the order in which a text cites them."""

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}

    def __call__(self, *keys: str) -> str:
        """The numbers of references, as they stand behind a word; empty for none."""
        numbers = [self._keys.setdefault(key, len(self._keys) + 1) for key in keys]
        return f" [{', '.join(map(str, numbers))}]" if numbers else ""

    @property
    def references(self) -> list[str]:
        """What was cited, first to last."""
        return [REFERENCES[key] for key in self._keys]


def methods_text(
    steps: list[Record], *, version: str, test: str | None, libraries: str | None = None
) -> tuple[str, list[str]]:
    """The paragraph, and the references in the order it cites them.

    Parameters
    ----------
    test
        What was tested, in words; None: nothing.
    libraries
        How voom measured the libraries of the counts that were tested; None: none were.
    """
    cite = Citations()
    sentences = [_of_step(step, cite) for step in steps]
    if test is not None:
        values = "values that were not corrected"
        if libraries is not None:
            sizes, keys = SIZE_FACTORS[libraries]
            values = f"the uncorrected counts, weighted by voom (libraries by {sizes}"
            values += f"{cite(*keys)}){cite('law')}"
        sentences.append(
            f"Differences ({test}) were tested on {values}, with "
            f"batch in the linear model, by moderated statistics{cite('smyth')}; p-values "
            f"were adjusted for multiple testing{cite('benjamini')}. Corrected values "
            "were not tested, because such tests overstate significance"
            f"{cite('nygaard')}."
        )
    used = {step.get("versions", {}).get("batchcorr", version) for step in steps}
    made_with = ", ".join(sorted(used or {version}))
    sentences.append(f"Computations were made with batchcorr {made_with}.")
    return " ".join(sentences), cite.references


def _of_step(step: Record, cite: Citations) -> str:
    """One step in a sentence."""
    method, parameters = str(step.get("method")), step.get("parameters", {})
    if method == "log_normalize":
        sizes = str(parameters.get("method"))
        how, keys = SIZE_FACTORS.get(sizes, (sizes, []))
        return (
            f"Counts of {step['n_obs']:,} samples were divided by {how}{cite(*keys)} and "
            "log-transformed."
        )
    if method == "quantile_normalize":
        return f"Samples were quantile-normalized{cite('bolstad')}."
    name, keys = CORRECTIONS.get(method, (method, []))
    details = []
    if method == "combat":
        prior = "parametric" if parameters.get("parametric", True) else "non-parametric"
        details.append(f"{prior} priors")
        if parameters.get("mean_only"):
            details.append("means only")
    if parameters.get("reference") is not None:
        details.append(f"batch {parameters['reference']} as the reference")
    kept = list(map(str, step.get("kept") or []))
    removed = list(map(str, step.get("nuisance") or []))
    text = (
        f"Effects of {_named(step.get('batch'))} ({len(step.get('batches') or [])} "
        f"batches; {step['n_obs']:,} samples × {step['n_vars']:,} features) were "
        f"removed by {name}{cite(*keys)}"
    )
    text += f" with {some(details)}" if details else ""
    text += f", keeping {some(kept)}" if kept else ", keeping no covariates"
    text += f" and removing {some(removed)}" if removed else ""
    return f"{text}."


def _named(batch: object) -> str:
    names = batch if isinstance(batch, list) else [batch or "batch"]
    return " and ".join(str(name) for name in names)
