"""Methods by name: what their sources say is what the classes are."""

from __future__ import annotations

from inspect import getdoc, signature

import pytest

from batchcorr.errors import MissingKeyError
from batchcorr.methods import get, registry
from batchcorr.methods._registry import descriptions


def test_sources_say_what_the_classes_are():
    found, methods = descriptions(), registry()
    assert found.keys() == methods.keys()
    for name, kind in methods.items():
        said, known = found[name], signature(kind).parameters
        assert said.record == kind.record
        assert said.class_name == kind.__name__
        assert said.summary == (getdoc(kind) or "").partition("\n")[0]
        assert list(said.defaults) == list(known)
        assert all(said.defaults[each] == known[each].default for each in known)


def test_a_name_that_is_none_is_told_what_there_is():
    with pytest.raises(MissingKeyError, match="Did you mean 'combat'"):
        get("combta")
