"""Compares every method, tuned, on the same streams: learning and forgetting.

  python -m smft_jax.sweep --config=configs/pareto.py
  python -m smft_jax.sweep --config=configs/pareto.py:quick
  python -m smft_jax.sweep --config=configs/pareto.py:validation

reported (default): three seeds; every method with the settings that won on the
  validation stream, at rates around the best; and ablations. 58 minutes on two
  cores, bases included. Expect sparse memory to recall 99% and to lose 1% to
  2%; full finetuning to recall 44% and LoRA 18%, both losing most known facts.
quick: only sparse memory, full finetuning and LoRA, with half the documents and
  one seed, so without error bars. 9 minutes.
validation: the grids that the settings were chosen from, with another seed. Its
  report compares the settings of each method.

A point learns the first 16 documents of configs/docqa.py, 12 steps each. A seed
sets world, base and stream; bases are those of configs/docqa.py, made first.
"""

import pathlib

from smft_jax.config import file as config_file

VARIANTS = ('reported', 'quick', 'validation')
SEEDS = (0, 1, 2)
VALIDATION_SEED = 100

_SGD = (15.0, 30.0, 60.0, 120.0)
_FULL = (3e-5, 1e-4, 3e-4, 1e-3)
_LORA = (1e-4, 3e-4, 1e-3, 3e-3)
_EXPERTS = (3e-4, 1e-3, 3e-3, 1e-2)
_SHARES = (0.25, 0.5, 0.75)


def _grid(name, rates, *settings):
  """Each of a method's settings at each of the learning rates."""
  return [(dict(name=name) | more, rates) for more in settings]


# The settings and rates of each method on the validation stream.
GRIDS = {
  'sparse_memory': _grid(
    'sparse_memory', _SGD, *(dict(t=t) for t in (100, 300, 1000))
  ),
  'full': _grid(
    'full', (1e-5, *_FULL, 3e-3), dict(weight_decay=0.1), dict(weight_decay=0.0)
  ),
  'lora': _grid(
    'lora', _LORA, *(dict(rank=r, alpha=2.0 * r) for r in (4, 16, 64))
  ),
  'lora_attention': _grid(
    'lora',
    _LORA,
    *(dict(targets='attention', rank=r, alpha=2.0 * r) for r in (4, 16, 64)),
  ),
  'values_only': [
    (dict(name='values_only', optimizer='adamw'), (1e-3, 3e-3, 1e-2, 3e-2)),
    (dict(name='values_only', optimizer='sgd'), (7.5, *_SGD)),
  ],
  'adapter': _grid('adapter', _LORA, *(dict(width=w) for w in (8, 32, 128))),
  'ewc': _grid('ewc', _FULL, *(dict(strength=s) for s in (1e5, 1e6, 1e7))),
  'replay': _grid(
    'replay', _FULL, *(dict(replay_fraction=share) for share in _SHARES)
  ),
  'experts': _grid(
    'experts', _EXPERTS, *(dict(num_experts=n) for n in (2, 4, 16))
  ),
  'sparse_memory_replay': _grid(
    'sparse_memory',
    _SGD,
    *(dict(t=300, replay_fraction=share) for share in _SHARES),
    *(dict(t=1000, replay_fraction=share) for share in _SHARES[:2]),
  ),
}

# The settings with the largest dominated area there, at rates that span their
# front.
WINNERS = {
  'sparse_memory': (dict(name='sparse_memory', t=1000), (7.5, *_SGD)),
  'full': (dict(name='full', weight_decay=0.1), (3e-5, 1e-4, 3e-4)),
  'lora': (dict(name='lora', rank=16, alpha=32.0), (1e-4, 3e-4, 1e-3)),
  'lora_attention': (
    dict(name='lora', targets='attention', rank=64, alpha=128.0),
    (1e-4, 3e-4),
  ),
  'values_only': (dict(name='values_only', optimizer='sgd'), _SGD[:3]),
  'adapter': (dict(name='adapter', width=32), (1e-4, 3e-3)),
  'ewc': (dict(name='ewc', strength=1e5), (3e-5, 1e-4, 3e-4)),
  'replay': (dict(name='replay', replay_fraction=0.75), (1e-4, 3e-4)),
  'experts': (dict(name='experts', num_experts=16), (1e-3, 3e-3)),
  'sparse_memory_replay': (
    dict(name='sparse_memory', t=1000, replay_fraction=0.25),
    _SGD[1:],
  ),
}
_T, _SMALL_T, _SLOTS = 1000, 100, 256**2

_TEXT = """\
A small language model with a memory layer knows facts about 200 people. It then
learns documents about 16 new people, one after another, and is asked about them
in phrasings that training never showed. It should not forget the people that it
knew.

Every method took the same steps on the same texts. Its settings were chosen on
a stream with another seed; the grids are in the config.
"""

REPORT = dict(
  title='Sparse memory finetuning and its rivals',
  text=_TEXT,
  panels=dict(
    ranking_small_t=dict(
      title=f'The ranking of slots, at t = {_SMALL_T}',
      text='Updating all accessed slots has no t: those runs are the same in'
      ' both pictures.',
      lines='method.ranking',
      order=('tf_idf', 'tf', 'all_accessed'),
    ),
    ranking_large_t=dict(
      title=f'The ranking of slots, at t = {_T}',
      lines='method.ranking',
      order=('tf_idf', 'tf', 'all_accessed'),
    ),
    t=dict(
      title='The number of slots updated in a step',
      text='At a learning rate of 30.',
      kind='sweep',
      x='method.t',
      x_label='t',
    ),
    background=dict(
      title='The background corpus',
      text='Document frequencies over pretraining text; over general sentences,'
      ' which name no person; and over the documents to learn, which spares the'
      ' very slots that should change.',
      lines='background.corpus',
      line_labels=dict(
        general_text='general sentences', stream='the documents themselves'
      ),
      order=('pretraining', 'general_text', 'stream'),
    ),
    document=dict(
      title='The size of a background document',
      text='A document is a batch of 256 sequences, as in the paper, or one'
      ' sequence. Batches read most slots, so their document frequency'
      ' distinguishes slots less.',
      lines='background.document',
      line_labels=dict(sequence='a sequence', batch='a batch'),
      order=('sequence', 'batch'),
    ),
  ),
)


def get_config(variant='reported'):
  """configs/docqa.py with a stream short enough for many points."""
  docqa = pathlib.Path(__file__).with_name('docqa.py')
  config = config_file.load(str(docqa))
  config.stream.update(dict(max_documents=16, steps_per_document=12))
  config.evaluation.update(dict(every_documents=8, max_entries=500))
  if variant == 'quick':
    config.stream.max_documents = 8
    config.evaluation.every_documents = 4
  return config


def sweep(add, variant='reported'):
  """Adds the points of a variant."""
  if variant == 'validation':
    for label, grid in GRIDS.items():
      for settings, rates in grid:
        more = dict(panels=('front', label), x=_text(settings))
        for rate in rates:
          _add(add, VALIDATION_SEED, label, settings, rate, **more)
    return
  for seed in SEEDS if variant == 'reported' else SEEDS[:1]:
    for label, (settings, rates) in WINNERS.items():
      if variant == 'quick' and label not in ('sparse_memory', 'full', 'lora'):
        continue
      tuned = sum(len(rates) for _, rates in GRIDS[label])
      for rate in rates:
        panels = ('front',)
        if label == 'sparse_memory':
          panels += ('ranking_large_t', 'background', 'document')
          panels += ('t',) if rate == 30.0 else ()
        _add(add, seed, label, settings, rate, panels=panels, tuned=tuned)
    if variant == 'reported':
      point = {'seed': seed, 'method.name': 'in_context'}
      add(f'in_context-seed={seed}', point)
      _ablations(add, seed)


def _ablations(add, seed):
  """Adds sparse memory finetuning with one thing changed at a time."""

  def ablate(panels, rates, overrides=(), **settings):
    settings = dict(name='sparse_memory', t=_T) | settings
    for rate in rates:
      _add(add, seed, 'sparse_memory', settings, rate, overrides, panels=panels)

  for ranking in ('tf_idf', 'tf'):
    ablate(['ranking_small_t'], (60.0, 240.0), ranking=ranking, t=_SMALL_T)
  for ranking in ('kl', 'random'):
    ablate(['ranking_small_t'], (240.0,), ranking=ranking, t=_SMALL_T)
    ablate(['ranking_large_t'], (60.0,), ranking=ranking)
  ablate(['ranking_large_t'], (15.0, 60.0), ranking='tf')
  both = ['ranking_small_t', 'ranking_large_t']
  ablate(both, (15.0, 60.0), ranking='all_accessed', t=_SLOTS)
  for t in (100, 300, 3000, 10000):
    ablate(['t'], (30.0,), t=t)
  for corpus in ('general_text', 'stream'):
    ablate(['background'], (15.0, 60.0), {'background.corpus': corpus})
  ablate(['document'], (15.0, 60.0), {'background.document': 'batch'})


def _add(add, seed, label, settings, rate, overrides=(), **more):
  """Adds a point of a method at a learning rate, named by its settings."""
  # Panels need these defaults to tell lines apart; names do not.
  defaults = {
    'method.ranking': 'tf_idf',
    'background.corpus': 'pretraining',
    'background.document': 'sequence',
  }
  if settings['name'] != 'sparse_memory':
    defaults = {}
  settings = settings | dict(learning_rate=rate)
  chosen = {f'method.{k}': v for k, v in settings.items()} | dict(overrides)
  name = '-'.join([label, _text(chosen), f'seed={seed}'])
  add(name, defaults | chosen | dict(seed=seed), method=label, **more)


def _text(settings):
  """Formats settings like 'rank=4,alpha=8', without the method's name."""
  return ','.join(
    f'{key.split(".")[-1]}={value:{"g" if isinstance(value, float) else ""}}'
    for key, value in settings.items()
    if key not in ('name', 'method.name')
  )
