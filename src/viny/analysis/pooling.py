"""Pooling effects of which only an estimate and a standard error are known."""

import math

import numpy as np
import pandas as pd
from statsmodels.stats.meta_analysis import combine_effects


def random_effects(tests: pd.DataFrame, confidence: float = 0.95) -> dict[str, float]:
    """Random-effects mean of several effects, weighted by inverse variance.

    Variance between effects by Paule-Mandel; interval by Hartung-Knapp, which takes the error from the scatter of the
    effects themselves and so does not lean on standard errors from three runs. Moderated standard errors are the
    weights, because a cell that shows 0.01 by luck would otherwise decide alone.

    Args:
        tests: columns effect, se_moderated (rows with a missing value are left out).

    Returns:
        pooled_random_effects, pooled_low, pooled_high, tau (standard deviation between effects); NaN for fewer than
        two effects.
    """
    known = tests[["effect", "se_moderated"]].dropna()
    if len(known) < 2 or (known["se_moderated"] <= 0).any():
        return dict.fromkeys(("pooled_random_effects", "pooled_low", "pooled_high", "tau"), math.nan)
    result = combine_effects(
        known["effect"].to_numpy(), known["se_moderated"].to_numpy() ** 2, method_re="iterated", use_t=True
    )
    low, high = result.conf_int(alpha=1 - confidence)[3]  # random effects with Hartung-Knapp scale
    return {
        "pooled_random_effects": float(result.mean_effect_re),
        "pooled_low": float(low),
        "pooled_high": float(high),
        "tau": float(np.sqrt(max(result.tau2, 0.0))),
    }
