"""Finetunes the memory of a base model on a stream of new documents.

  python -m smft_jax.train --config=configs/docqa.py
  python -m smft_jax.train --config=configs/docqa.py:jsonl,hf \
      --config.base.path=PATH --config.data.documents_file=FILE
  python -m smft_jax.train --config=configs/docqa.py:world,hf \
      --config.base.path=PATH
  python -m smft_jax.train --config=configs/docqa.py:squad \
      --config.data.data_dir=DIR

A variant is a kind of data and, after a comma, a way to get the base, which is
made first unless it is cached.

world (default): invented people.
jsonl: your documents, a file or a folder (docs/guides/documents.md).
squad: paragraphs of SQuAD, from TFDS data sets in DIR.
simpleqa: pages for SimpleQA's questions (--config.data.documents_file=FILE),
  and data sets in DIR.

(none): a small model made from scratch, configs/pretrain.py. Needs DIR, but for
  world: 8 minutes on two cores, 1.5 of them after the base. With seed 0 expect
  0.92 recall of the new facts in unseen phrasings and 1% of the known facts
  lost; over seeds 0.83 to 0.92, and up to 3%.
hf: a pretrained model with a memory fitted to it, configs/fit.py. PATH is a
  Hugging Face folder or a GGUF file; DIR is optional but for data in it. world
  teaches 12 people (--config.data.num_new) in about 40 minutes, after which
  SmolLM2-135M knew 0.78 of the new facts in phrasings that training shows,
  0.68 in others, bare or behind other questions, and gave 99% of its answers
  to other questions unchanged. jsonl takes 2.5 minutes for 700 characters,
  and answers questions in the words of the text. Settings for other data are
  guesses.
heal: pretrained weights with a memory that is trained, configs/heal.py. For
  world the weights are those of configs/pretrain.py:plain; expect 0.75 recall,
  and 2% of the known facts lost.
docs/numbers.md has results.
"""

import pathlib

from smft_jax.config import file as config_file

_BASES = {'': 'pretrain.py', ',hf': 'fit.py', ',heal': 'heal.py'}
VARIANTS = tuple(
  f'{kind}{base}'
  for kind in ('world', 'jsonl', 'squad', 'simpleqa')
  for base in _BASES
)


def get_config(variant='world'):
  """Sparse memory finetuning: TF-IDF, t rows a step."""
  kind, comma, base = variant.partition(',')
  source = pathlib.Path(__file__).with_name(_BASES[comma + base])
  config = config_file.load(f'{source}:{kind}')
  config.method = dict(
    name='sparse_memory', update='rows', ranking='tf_idf', optimizer='sgd'
  )
  if base == 'hf':
    config.stream = dict(context_weight=0.0)
    config.method.update(
      dict(
        ranking='tf_idf_cubed',
        optimizer='adam',
        select='document',
        grows_background=True,
        t=300,
        learning_rate=1.0,
        schedule='wsd',
      )
    )
    # A row has some four texts.
    config.stream.update(
      dict(steps_per_document=84, batch_size=3, max_length=96, packed=True)
    )
    if kind == 'world':
      # Most of its texts stand behind other questions, in twice the tokens.
      config.stream.batch_size = 4
      config.evaluation.update(dict(every_documents=4, max_entries=100))
    else:
      config.data.update(dict(augmentations=128, chunk_chars=700))
    return config
  if kind == 'world':
    config.background = dict(num_batches=32, batch_size=256)
    config.stream = dict(steps_per_document=16, batch_size=32)
    rate = 150.0 if base == 'heal' else 30.0
    config.method.update(dict(t=300, learning_rate=rate))
  else:
    config.background = dict(num_batches=128, batch_size=8)
    config.stream = dict(steps_per_document=4, batch_size=8)
    # Cubed idf: running text reads most slots, and plain idf spares too few.
    config.method.update(
      dict(ranking='tf_idf_cubed', t=4000, learning_rate=300.0)
    )
  config.background.document = 'sequence'
  return config
