"""Assembles results.json.

`lesson` holds the cost of learning a document:
- `steps`: steps on it;
- `flops`: operations of these steps' matrix products, forward, backward and
  update (`smft_jax.flops`);
- `wall_s`: median over documents of the seconds of these steps, making batches
  included, measurements excluded; the first document, which compiles, is left
  out if there are others.

`input_wait_s` is the time that the stream waited for batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.evaluation import edits as edits_lib
from smft_jax.evaluation import transfer
from smft_jax.runs import base as base_lib
from smft_jax.runs import measurements
from smft_jax.runs import model as model_lib
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import checksum
from smft_jax.training import state as state_lib


def of_stream(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  state: state_lib.TrainState,
  sets: measurements.Measurements,
  before: measurements.Measured,
  after: measurements.Measured,
  *,
  cost: dict[str, Any],
  flops: int,
  evaluations: Sequence[dict[str, Any]],
  lessons: Sequence[dict[str, Any]],
) -> dict[str, Any]:
  """Returns the results of a stream.

  Args:
    experiment: The config.
    base: The model before the stream.
    state: The state after it.
    sets: What was measured.
    before: Measurements of the base.
    after: Measurements of the last state.
    cost: `wall_s`, `input_wait_s` and `tokens`.
    flops: Operations of a lesson.
    evaluations: The 'evaluation' records of metrics.jsonl.
    lessons: The 'stream' records of metrics.jsonl.
  """
  assert experiment.method is not None
  assert experiment.stream is not None
  matrix = transfer.accuracy_matrix(
    [(r['documents'], r['document_recall']) for r in evaluations]
  )
  steps = int(state.step)
  return {
    'method': experiment.method.name,
    'seed': experiment.seed,
    'steps': steps,
    'steps_skipped': int(state.skipped),
    **cost,
    **_changes(base.params, state.params),
    'state_hash': checksum.fingerprint(state.params),
    **sets.compare(before.metrics, after.metrics),
    'locality': measurements.locality(before, after),
    'answers_unchanged': measurements.answers_unchanged(sets, before, after),
    **_edits(evaluations, lessons),
    'accuracy_matrix': matrix,
    'transfer': transfer.measures(matrix),
    'lesson': {
      'steps': experiment.stream.steps_per_document if steps else 0,
      'flops': flops,
      'wall_s': _median_lesson(lessons),
    },
    'retention_curve': [
      {'documents': r['documents'], **sets.curve_point(r['metrics'])}
      for r in evaluations
    ],
    'metrics_before': before.metrics,
    'metrics_after': after.metrics,
    'counts': base.task.counts,
  }


def of_base(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  sets: measurements.Measurements,
  measured: measurements.Measured,
) -> dict[str, Any]:
  """Returns the results of a run without a stream.

  For healed weights, 'before' is what they knew before they were healed.

  Args:
    experiment: The config.
    base: The base.
    sets: What was measured.
    measured: Measurements of the base.
  """
  settings = experiment.base
  results = {
    'method': 'healing' if settings.doing == 'healing' else None,
    'seed': experiment.seed,
    'steps': 0,
    'state_hash': base.fingerprint,
    'counts': base.task.counts,
  }
  if isinstance(settings, sections.BaseConfig) and settings.path:
    results['steps'] = settings.steps
    graphdef, params = model_lib.before_healing(
      settings.path, base.config, experiment.seed
    )
    before = sets.with_model(graphdef).measure(params)
    return {
      **results,
      **sets.compare(before.metrics, measured.metrics),
      'metrics_before': before.metrics,
      'metrics_after': measured.metrics,
    }
  held_out = {}
  for name, values in measured.metrics.items():
    metric = sets.headline(name)
    held_out[name] = {'metric': metric, 'before': values[metric]}
  return {**results, 'held_out': held_out, 'metrics_before': measured.metrics}


def _edits(
  evaluations: Sequence[dict[str, Any]], lessons: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Returns what `evaluation.edits` measured before, between and after."""
  if 'edits' not in evaluations[0]:
    return {}
  before, after = evaluations[0]['edits'], evaluations[-1]['edits']
  each = [record['edits'] for record in lessons]

  def entry(measure: str, definition: str) -> dict[str, float | None]:
    at_once = [one[measure][definition] for one in each]
    known = [share for share in at_once if share is not None]
    return {
      'before': before[measure][definition],
      'right_after': float(np.mean(known)) if known else None,
      'after': after[measure][definition],
    }

  by_definition = {
    definition: {m: entry(m, definition) for m in edits_lib.MEASURES}
    for definition in edits_lib.DEFINITIONS
  }
  return {
    'edits': {
      'num': after['num'],
      **by_definition['token_accuracy'],
      'exact': by_definition['exact'],
      'curve': [
        {'edits': record['documents'], **record['edits']}
        for record in evaluations[1:]
      ],
    }
  }


def _median_lesson(lessons: Sequence[dict[str, Any]]) -> float | None:
  seconds = [record['lesson_s'] for record in lessons]
  return float(np.median(seconds[1:] or seconds)) if seconds else None


def _num_true(array: jax.Array) -> int:
  """Counts, exactly beyond the 2**31 that an int32 sum holds."""
  last = jnp.sum(jnp.atleast_1d(array), axis=-1)
  return int(np.sum(layout_lib.to_numpy(last), dtype=np.int64))


def _changes(old: nnx.State, new: nnx.State) -> dict[str, Any]:
  """Counts parameters that differ in any bit; added ones count in full."""
  before = dict(jax.tree.leaves_with_path(old))
  changed = added = total_bytes = 0
  for path, leaf in jax.tree.leaves_with_path(new):
    if path in before:
      differing = _num_true(before[path] != leaf)
    else:
      differing = leaf.size
      added += leaf.size
    changed += differing
    total_bytes += differing * leaf.dtype.itemsize
  size = sum(leaf.size for leaf in before.values()) + added
  rows = jnp.any(
    state_lib.value_table(old) != state_lib.value_table(new), axis=-1
  )
  return {
    'slots_updated': _num_true(rows),
    'params_changed': changed,
    'bytes_changed': total_bytes,
    'params_changed_fraction': changed / size,
  }
