"""Tables of sweeps that never ran."""


def row(method, seed, recall, drop, **more):
  """One finished point, with all that a row may hold."""
  rate = more.pop('rate', recall)
  settings = {'method.name': method, 'method.learning_rate': rate}
  return {
    'name': f'{method}-{rate}-{seed}',
    'method': method,
    'panels': ['front'],
    'x': None,
    'tuned': 7,
    'seed': seed,
    'recall': recall,
    'recall_before': 0.0,
    'recall_seen': recall,
    'drop': drop,
    'retention': 0.9,
    'locality': 0.8,
    'params_changed': 1300,
    'bytes_changed': 5200,
    'flops': 1.7e12,
    'lesson_s': 1.9,
    'settings': settings | {'seed': seed},
    **more,
  }


def line(method, *places, seeds=(0, 1, 2), **more):
  """The same places with every seed, told apart by their rate."""
  return [
    row(method, seed, recall, drop, rate=float(rate), **more)
    for seed in seeds
    for rate, (recall, drop) in enumerate(places, start=1)
  ]


def headline():
  """Sparse memory loses 2% at a recall of 0.8, LoRA 20% and full 40%."""
  return [
    *line('sparse_memory', (0.4, 0.01), (0.8, 0.02)),
    *line('full', (0.4, 0.1), (0.8, 0.4)),
    *line('lora', (0.8, 0.2)),
  ]
