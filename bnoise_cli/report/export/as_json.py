"""`--json`: the results as they are stored."""

from __future__ import annotations

from typing import Any

from bnoise_cli.report.export.export import Printed, Results


def _data(results: Results, _asked: bool) -> Any:
    data = [result.to_json() for _, result in results]
    return data[0] if len(data) == 1 else data


JSON = Printed(option="--json", type=bool, help="Print the result as JSON and nothing else.", content=_data)
