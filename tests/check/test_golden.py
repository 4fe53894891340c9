"""Whole outputs of a check in every format; `pytest --golden` rewrites the files in tests/golden/."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import store


@pytest.mark.parametrize("form", ["text", "markdown", "github", "junit"])
def test_every_verdict_in_every_format(
    golden: Callable[[str, str], None], bnoise: Call, write: Write, form: str
) -> None:
    sizes = {"pass": "32", "warn": "105", "fail": "3200", "tokens": "64000 tokens"}
    for name, size in sizes.items():
        write(f"{name}.yaml", QUADRATIC_CONFIG.replace("batch_size: 32", f"batch_size: {size}"))
    in_tokens = QUADRATIC_CONFIG.replace(
        "batch_size: 32", "batch_size: 64000 tokens\n  tokens_per_example: 1000"
    )
    write("tokens.yaml", in_tokens.replace("version: 1", "version: 1\nunit: tokens"))
    store("pass.yaml")  # which measured the others as well: the batch size is not part of what is measured
    write("unmeasured.yaml", QUADRATIC_CONFIG.replace("16", "17"))
    write("wrong.yaml", QUADRATIC_CONFIG.replace("batch_size: 32", "batchsize: 32"))
    names = [f"{name}.yaml" for name in (*sizes, "unmeasured", "wrong")]
    code, out, err = bnoise("check", *names, "--format", form)
    assert (code, err) == (2, "")
    out = re.sub(r'(timestamp|hostname|time)="[^"]*"', r'\1="…"', out)
    golden(f"check_{form}", out)
