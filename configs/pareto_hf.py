"""Compares methods on a pretrained model: learning against forgetting.

  python -m smft_jax.sweep --config=configs/pareto_hf.py \
      --config.base.path=PATH
  python -m smft_jax.sweep --config=configs/pareto_hf.py:validation \
      --config.base.path=PATH

PATH is a Hugging Face folder or a GGUF file, as for configs/docqa.py:world,hf,
whose stream this is, with 4 people, 84 steps each. What is forgotten is the
share of the answers to questions on other things that are not, word for word,
what they were.

reported (default): three seeds; each method at rates around its best, sparse
  memory by every ranking, and reading in context.
validation: grids of rates, on people of another seed.

A point takes 10 to 40 minutes on two cores, by estimate. --point runs one of
them, and what has finished is not run again. Expect sparse memory to leave over
99% of the other answers as they were, and LoRA about one in six.
"""

import pathlib

from smft_jax.config import file as config_file

VARIANTS = ('reported', 'validation')
SEEDS = (0, 1, 2)
VALIDATION_SEED = 100

# The settings and rates of each method on the validation stream.
GRIDS = {
  'sparse_memory': (dict(ranking='tf_idf_cubed'), (0.5, 1.0, 2.0)),
  'full': (dict(name='full', weight_decay=0.0), (3e-6, 1e-5, 3e-5, 1e-4)),
  'lora': (
    dict(name='lora', rank=16, alpha=32.0, weight_decay=0.0),
    (3e-5, 1e-4, 3e-4, 1e-3),
  ),
  'lora_attention': (
    dict(
      name='lora',
      rank=16,
      alpha=32.0,
      targets='attention',
      weight_decay=0.0,
    ),
    (1e-4, 3e-4, 1e-3),
  ),
  'ewc': (dict(name='ewc', strength=1e5), (1e-5, 3e-5, 1e-4)),
  'replay': (dict(name='replay', replay_fraction=0.5), (1e-5, 3e-5, 1e-4)),
}

# Rates around the best of the validation points that were run, which are fewer
# than the grids (docs/numbers.md); those of sparse memory are around docqa's.
WINNERS = {
  'sparse_memory': (0.5, 1.0),
  'full': (1e-5, 3e-5),
  'lora': (3e-5, 1e-4),
}
# Beside the usual one.
RANKINGS = (
  'tf_idf_squared',
  'tf_idf',
  'tf',
  'all_accessed',
  'random',
)
# At which rankings are compared.
_RATE = 1.0
_SLOTS = 512**2

_TEXT = """\
A pretrained model learns invented people, one after another, and is asked about
them in phrasings that training never showed. Before and after, it is asked
other questions, and should answer them as it did.

Every method took the same steps on the same texts. Rates were chosen on people
of another seed.
"""

REPORT = dict(
  title='A pretrained model: sparse memory finetuning and its rivals',
  text=_TEXT,
  forgetting='answers',
  panels=dict(
    ranking=dict(
      title='The ranking of slots',
      lines='method.ranking',
      order=('tf_idf_cubed', 'tf_idf', 'tf', 'all_accessed', 'random'),
    ),
  ),
)


def get_config(variant='reported'):
  """configs/docqa.py:world,hf with a short stream, measured at its ends."""
  docqa = pathlib.Path(__file__).with_name('docqa.py')
  config = config_file.load(f'{docqa}:world,hf')
  config.data.num_new = 4
  config.evaluation.update(dict(every_documents=100, max_entries=80))
  # All methods start from one base, and some train what it stores.
  config.model.param_dtype = 'float32'
  return config


def sweep(add, variant='reported'):
  """Adds the points of a variant."""
  if variant == 'validation':
    for label, (settings, rates) in GRIDS.items():
      for rate in rates:
        _add(add, VALIDATION_SEED, label, settings, rate)
    return
  for seed in SEEDS:
    for label, rates in WINNERS.items():
      for rate in rates:
        panels = ('front',)
        if label == 'sparse_memory' and rate == _RATE:
          panels += ('ranking',)
        _add(add, seed, label, GRIDS[label][0], rate, panels=panels)
    add(f'in_context-seed={seed}', {'seed': seed, 'method.name': 'in_context'})
    for ranking in RANKINGS:
      settings = dict(ranking=ranking)
      if ranking == 'all_accessed':
        settings['t'] = _SLOTS
      _add(add, seed, 'sparse_memory', settings, _RATE, panels=('ranking',))


def _add(add, seed, label, settings, rate, **more):
  """Adds a point of a method at a learning rate, named by its settings."""
  settings = settings | dict(learning_rate=rate)
  chosen = {f'method.{key}': value for key, value in settings.items()}
  name = '-'.join(
    [label]
    + [f'{k}={v}' for k, v in settings.items() if k != 'name']
    + [f'seed={seed}']
  )
  add(name, chosen | dict(seed=seed), method=label, **more)
