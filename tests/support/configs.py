"""A config with every section."""

import copy

CONFIG = {
  'seed': 3,
  'data': {'kind': 'world', 'num_known': 13},
  'model': {
    'num_layers': 3,
    'model_dim': 34,
    'num_heads': 2,
    'num_kv_heads': 1,
    'head_dim': 18,
    'memory_layers': (2,),
    'ffn_dim': 53,
  },
  'memory': {
    'num_slots': 169,
    'value_dim': 19,
    'num_heads': 3,
    'k': 5,
    'key_dim': 14,
  },
  'base': {
    'steps': 7,
    'batch_size': 11,
    'learning_rate': 1e-3,
    'value_learning_rate': 1e-2,
    'max_length': 23,
  },
  'background': {'num_batches': 5, 'batch_size': 11},
  'stream': {'steps_per_document': 3, 'batch_size': 5},
  'method': {'t': 17, 'learning_rate': 31},
  'evaluation': {'every_documents': 2, 'batch_size': 29},
}


def changed(config, **changes):
  """A copy with changes such as method__t=3; None takes a key out."""
  config = copy.deepcopy(config)
  for name, value in changes.items():
    *path, key = name.split('__')
    section = config
    for part in path:
      section = section[part]
    if value is None:
      del section[key]
    else:
      section[key] = value
  return config


def make(**changes):
  """CONFIG with `changed`."""
  return changed(CONFIG, **changes)
