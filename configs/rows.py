"""Rows that the tables of one question share, whatever the data set."""

from collections.abc import Callable

import ml_collections

from configs import bases
from tsla.smoothing.rules import NAMES
from tsla.sweep.table import Row

Base = Callable[[], ml_collections.ConfigDict]

_THETA = 0.1


def variance(base: Base, drop: float) -> tuple[Row, ...]:
  """What δ is: without smoothing, weak, strong, dropped, towards a teacher.

  Args:
    base: what the experiments on the data set share.
    drop: the s of TSLA(s).
  """

  def probed() -> ml_collections.ConfigDict:
    return bases.probed(base())

  taught = bases.lsr(probed(), _THETA)
  taught.smoothing.target = 'teacher'
  return (
    Row('baseline', probed()),
    Row('LSR(0.1)', bases.lsr(probed(), 0.1)),
    Row('LSR(0.4)', bases.lsr(probed(), 0.4)),
    Row(f'TSLA({drop:g})', bases.tsla(probed(), _THETA, None, drop)),
    Row('LSR-pre(0.1)', taught, teacher='baseline'),
  )


def rules(base: Base, fixed: tuple[float, ...], drop: float) -> tuple[Row, ...]:
  """When to drop the smoothing: fixed s, rules that find it, controls.

  Args:
    base: what the experiments on the data set share.
    fixed: the s of TSLA(s), a row each.
    drop: the s whose area under θ(t) the controls have.
  """
  reset = bases.tsla(base(), _THETA, None, drop)
  reset.smoothing.reset_momentum = True
  return (
    Row('baseline', base()),
    Row('LSR', bases.lsr(base(), _THETA)),
    *(Row(f'TSLA({s:g})', bases.tsla(base(), _THETA, None, s)) for s in fixed),
    *(
      Row(f'auto: {rule}', bases.auto(bases.probed(base()), _THETA, rule))
      for rule in NAMES
    ),
    *(
      Row(
        f'{schedule} of area {_THETA * drop:g}',
        bases.control(base(), schedule, _THETA, drop),
      )
      for schedule in ('linear', 'cosine', 'rising', 'reversed')
    ),
    Row(f'TSLA({drop:g}), momentum reset', reset),
  )


def methods(base: Base, drops: tuple[float, ...]) -> tuple[Row, ...]:
  """The methods of docs/methods.md, to the end and in two stages.

  Each measures its own σ², ρ, θ* and m(θ)/σ², and δ where it mixes labels.

  Args:
    base: what the experiments on the data set share.
    drops: the s of the two stages, a row each.
  """

  def probed() -> ml_collections.ConfigDict:
    return bases.probed(base())

  # As MaxSup is published for convolutional networks: θ from 0.1 to 0.2.
  rising = bases.method(probed(), 'max_suppression')
  rising.smoothing.schedule = 'ramp'
  rows = [Row('baseline', probed()), Row('max_suppression, ramp', rising)]
  for name, theta in bases.THETAS.items():
    taught = 'baseline' if name == 'class_similarity' else ''
    whole = bases.method(probed(), name)
    rows.append(Row(name, whole, taught))
    for s in drops:
      config = bases.tsla(whole.copy_and_resolve_references(), theta, None, s)
      rows.append(Row(f'{name}({s:g})', config, taught))
  return tuple(rows)


def numerics(base: Base, drop: float) -> tuple[Row, ...]:
  """TSLA in both precisions; parameters and losses are float32 in either."""
  single = bases.tsla(base(), _THETA, None, drop)
  half = single.copy_and_resolve_references()
  half.model.dtype = 'bfloat16'
  return Row('float32', single), Row('bfloat16', half)
