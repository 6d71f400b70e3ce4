"""How a process learns of others: by flags, or from a cluster."""

import pytest

from smft_jax import schema
from smft_jax.runtime import cluster


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('localhost:1234', 0, -1), '--num_processes and --process_id is missing'),
    (('here', 2, 0), '--coordinator=here is not HOST:PORT'),
    (('here:70000', 2, 0), '--coordinator=here:70000 is not HOST:PORT'),
    (('here:1', 2, 2), '--process_id=2 must be below --num_processes = 2'),
  ],
)
def test_flags_that_do_not_fit_are_refused(flags, message):
  with pytest.raises(schema.UserError, match=message):
    cluster.check_flags(*flags)


@pytest.mark.parametrize(
  ('environment', 'expected'),
  [
    ({}, False),
    ({'SLURM_PROCID': '0', 'SLURM_STEP_NUM_TASKS': '4'}, True),
    # A batch script, or one task alone.
    ({'SLURM_PROCID': '0', 'SLURM_STEP_NUM_TASKS': '1'}, False),
    ({'KUBERNETES_SERVICE_HOST': 'x', 'JOB_COMPLETION_INDEX': '3'}, True),
    ({'KUBERNETES_SERVICE_HOST': 'x'}, False),
  ],
)
def test_a_cluster_is_detected(environment, expected, monkeypatch):
  for name in (
    *('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'),
    *('KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'),
  ):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setattr(
    cluster.importlib.util, 'find_spec', lambda name: name == 'kubernetes'
  )
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert cluster.is_detected() == expected
