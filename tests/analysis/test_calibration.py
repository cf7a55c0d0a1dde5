"""A small version of `python -m benchmarks.calibration`: bounds that few studies can tell from a fault."""

import numpy as np

from benchmarks.calibration import Setting, line, measure_setting


def test_intervals_cover_and_verdicts_are_seldom_wrong():
    setting = Setting(3)
    found = measure_setting(setting, studies=25)
    assert 93 < found["cells"] < 99.5
    for name, share in found.items():
        kind, _, _ = name.partition(" ")
        if kind == "effect":
            assert 91 < share < 99.5, name
        elif kind == "average":
            assert share >= 76, name
        elif kind in ("supported", "contradicted"):
            assert share <= 20, name
    assert np.mean([share for name, share in found.items() if name.startswith("average")]) > 88
    assert np.mean([share for name, share in found.items() if name.startswith(("supported", "contradicted"))]) < 3
    assert line(setting, found)[0] == setting.name


def test_laws_are_covered():
    found = measure_setting(Setting(3, growth=True), studies=10)
    for name in ("exponent", "asymptote", "slope", "effective data"):
        assert found[name] > 84, name
