"""The curves of the report as pictures: what stands where."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lm_gym.app.report.plots import curve_plots
from lm_gym.app.report.report_data import Curve


@pytest.mark.parametrize("iterations", [3, 40])
def test_a_run_that_ends_below_the_panel_has_its_marker_at_the_edge(iterations: int) -> None:
    ends = {"far below": -6.0, "just below": -1.1, "above": 0.5}
    curves = [
        Curve(
            name=name,
            history=tuple(
                {"explained_variance": 0.3 + (end - 0.3) * step / iterations} for step in range(iterations + 1)
            ),
        )
        for name, end in ends.items()
    ]
    (plot,) = curve_plots(curves)
    (panel,) = re.findall(r'<clipPath.*?<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', plot.svg, re.S)
    top, bottom = float(panel[0]), float(panel[0]) + float(panel[1])
    markers = re.findall(r'<use [^>]*y="([\d.-]+)"[^>]*var\(--series-\d\)', plot.svg)
    assert len(markers) == 3
    assert [float(y) for y in markers[:2]] == pytest.approx([bottom, bottom], abs=0.01)
    assert top < float(markers[2]) < bottom
    assert plot.caption == "Values below −1 are cut off; a run that ends there has its marker at −1."


def test_a_run_that_stays_on_the_panel_is_not_cut_off() -> None:
    (plot,) = curve_plots([Curve(name="a", history=({"explained_variance": -1.0}, {"explained_variance": 0.2}))])
    assert plot.caption == ""


def test_pyplot_is_never_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from lm_gym.app.report.plots import curve_plots; from lm_gym.app.report.report_data import Curve; "
        "assert 'matplotlib' not in sys.modules; "
        "assert curve_plots((Curve(name='a', history=({'kl': 1.0},)),)); "
        "assert 'matplotlib.backends.backend_svg' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules; "
        "import matplotlib; assert matplotlib.rcParams['svg.fonttype'] == 'path'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
