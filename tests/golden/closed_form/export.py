"""Ridge regression by scikit-learn in double precision, for `closed_form`."""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.linalg import fractional_matrix_power
from sklearn.linear_model import Ridge

sys.path.insert(0, str(Path(__file__).parent.parent))
from formula import uniform  # noqa: E402


def matrix(name: str, rows: int, columns: int) -> np.ndarray:
    return uniform(name, rows * columns).reshape(rows, columns).astype(np.float64)


def main() -> None:
    values = {}
    for name, rows, inputs, ridge in (("tall", 400, 90, 1.0), ("wide", 150, 700, 0.1)):
        x = matrix(f"{name}.x", rows, inputs) + 0.5
        y = x[:, :6] * np.arange(1, 7) + matrix(f"{name}.y", rows, 6) - 2.0
        centred = x - x.mean(0)
        penalty = ridge * np.mean(np.sum(centred**2, 0))
        fitted = Ridge(alpha=penalty, solver="cholesky").fit(x, y)
        predicted = fitted.predict(x)
        covariance = np.cov(predicted.T, bias=True)
        whitened = (predicted - predicted.mean(0)) @ fractional_matrix_power(covariance, -0.25)
        values |= {
            f"{name}.weight": fitted.coef_,
            f"{name}.bias": fitted.intercept_,
            f"{name}.whitened": whitened,
            f"{name}.explained": np.array([1 - ((y - predicted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()]),
        }
    save_file({name: np.ascontiguousarray(value, np.float32) for name, value in values.items()},
              Path(__file__).parent / "values.safetensors")


main()
