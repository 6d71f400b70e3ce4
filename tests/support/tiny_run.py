"""A run of the whole program in seconds: a world of few people, a tiny model.

`write_config` puts it into a file, as a person's own config would be.
"""

import pathlib

from smft_jax.config import experiment as config_lib
from smft_jax.runs import finetune
from smft_jax.runs import saved_run
from smft_jax.runs import states
from smft_jax.runs import workdir as workdir_lib
from tests.support import configs

CONFIG = {
  'seed': 3,
  'data': {
    'kind': 'world',
    'num_known': 11,
    'num_new': 3,
    'num_never_seen': 2,
    'attributes': ('birthplace', 'field'),
    'paraphrases': 3,
    'unseen_paraphrases': 1,
    'question_phrasings': 2,
    'general_sentences': 13,
    'general_test_sentences': 5,
  },
  'model': {
    'num_layers': 1,
    'model_dim': 14,
    'num_heads': 2,
    'num_kv_heads': 1,
    'head_dim': 6,
    'ffn_dim': 19,
    'memory_layers': (0,),
  },
  'memory': {
    'num_slots': 49,
    'value_dim': 10,
    'num_heads': 2,
    'k': 3,
    'key_dim': 6,
  },
  'base': {
    'steps': 5,
    'batch_size': 7,
    'learning_rate': 1e-2,
    'value_learning_rate': 4e-2,
    'max_length': 29,
    'checkpoint_every': 2,
  },
  'background': {'num_batches': 3, 'batch_size': 5},
  'stream': {'steps_per_document': 2, 'batch_size': 5},
  'method': {'t': 7, 'learning_rate': 3.0},
  'evaluation': {
    'every_documents': 1,
    'batch_size': 17,
    'max_entries': 13,
    'max_answer_tokens': 3,
  },
}


def make(**changes):
  """CONFIG with `configs.changed`."""
  return configs.changed(CONFIG, **changes)


def write_config(folder: pathlib.Path, **changes) -> pathlib.Path:
  """Writes the config, its cache in the same folder; returns the file."""
  config = make(base__cache_dir=str(folder / 'cache'), **changes)
  path = folder / 'tiny.py'
  path.write_text(
    'from ml_collections import config_dict\n\n\n'
    f'def get_config():\n  return config_dict.ConfigDict({config!r})\n'
  )
  return path


def learn(workdir: pathlib.Path, config):
  """A run without its measurements, which take most of the time.

  Returns:
    Its experiment and its base.
  """
  experiment = config_lib.from_config_dict(config)
  workdir_lib.prepare(workdir, experiment)
  base = saved_run.load_base(experiment, workdir)
  saved_run.record_base(workdir, base)
  state = states.first_state(experiment, base)
  student = finetune.make_learner(experiment, base)
  saves = states.checkpoints_of(experiment, base, state, workdir)
  for index in range(len(base.task.documents)):
    state, _ = student.learn(state, index)
  saves.save(state, {})
  return experiment, base
