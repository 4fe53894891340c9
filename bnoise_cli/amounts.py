"""Numbers of examples in words, with the same amount in tokens if the config asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from bnoise_cli.numbers import count, significant, tokens, within
from bnoise_cli.records import Estimate


@dataclass(frozen=True, slots=True)
class Amounts:
    """How numbers of examples are written for one result."""

    #: None: amounts are written in examples alone.
    tokens_per_example: float | None = None

    def tokens(self, examples: float | None) -> str:
        """The same amount in tokens, as a cell of a table; empty if it is unknown.

        A float is an estimate: the digits that are shown of it are converted.
        """
        if self.tokens_per_example is None or examples is None:
            return ""
        shown = examples if isinstance(examples, int) else float(significant(examples).replace(",", ""))
        return tokens(shown * self.tokens_per_example)

    def beside(self, examples: float) -> str:
        """`, 116,736 tokens` to follow a number of examples, or nothing."""
        return f", {self.tokens(examples)} tokens" if self.tokens_per_example is not None else ""

    def in_brackets(self, examples: float) -> str:
        """The same as ` (116,736 tokens)`, in the middle of a sentence."""
        return f" ({self.tokens(examples)} tokens)" if self.tokens_per_example is not None else ""

    def count(self, examples: int) -> str:
        """`114 (116,736 tokens)`, or `114`."""
        return count(examples) + self.in_brackets(examples)

    def examples(self, examples: float) -> str:
        """`114 examples, 116,736 tokens`; whole numbers in full, estimates in three digits."""
        number = count(examples) if isinstance(examples, int) else significant(examples)
        return f"{number} examples{self.beside(examples)}"

    def interval(self, estimate: Estimate) -> str:
        """Value and limits, or that the data cannot tell."""
        if estimate.value is None or estimate.high is None:
            known = f"at least {self.examples(float(estimate.low))}, no upper bound"
            return f"cannot tell ({known})" if estimate.low > 0 else "cannot tell"
        limits = f"{significant(estimate.low)} to {significant(estimate.high)}"
        if self.tokens_per_example is not None:
            limits += " examples"
        level = f"{round(100 * estimate.confidence)}% interval"
        return f"{self.examples(float(estimate.value))} ({level} {limits})"

    def within(self, value: float, low: float, high: float) -> str:
        """`114 (101 to 128), 116,736 tokens`."""
        return within(value, low, high) + self.beside(float(value))


#: Without tokens.
EXAMPLES = Amounts()
