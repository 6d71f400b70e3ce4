"""Fits a memory to a pretrained model, which stays what it was.

  python -m smft_jax.train --config=configs/fit.py --config.base.path=PATH

PATH is a Hugging Face folder of the Llama family or a GGUF file. The memory is
beside the FFN of one block. configs/docqa.py:KIND,hf and configs/facts.py:hf
teach it; run alone, this config only fits and measures.

Background and held-out sets ship with the package: invented people, prose, and
700 questions about the real world. With --config.data.data_dir=DIR, a folder of
TFDS data sets, WikiText-2 and the questions of Natural Questions and TriviaQA
are added to both.

world (default): invented people to teach; 12, or --config.data.num_new.
jsonl: your documents, --config.data.documents_file=FILE, or a folder.
squad, simpleqa, facts: data sets of DIR.
edits: knowledge edits, --config.data.edits_file=FILE.
"""

from ml_collections import config_dict

VARIANTS = ('world', 'squad', 'jsonl', 'simpleqa', 'facts', 'edits')


def get_config(variant='world'):
  """A pretrained model with an empty memory."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.data = _data(variant)
  config.data.seed = config.get_ref('seed')
  _base(config, variant)
  config.evaluation = dict(
    every_documents=100,
    batch_size=32,
    max_entries=250,
    max_answer_tokens=12,
    # Without examples a model hardly answers, and F1 or recall say little.
    prompt_format='few_shot',
    shots=4,
    metric='recall',
    text_metric='perplexity',
  )
  return config


def _data(kind):
  data = config_dict.ConfigDict(
    dict(
      kind=kind,
      general=True,
      known_questions=(
        'nq_open_train_part:train',
        'triviaqa_open:train_part',
      ),
      held_out_text='wikitext2:validation',
      held_out_questions=(
        'natural_questions_open:validation',
        'triviaqa_open:validation',
      ),
    )
  )
  if kind in ('world', 'edits'):
    del data.general
  if kind == 'world':
    data.kind = 'people'
  if kind == 'edits':
    data.edits_file = config_dict.placeholder(str, required=True)
  if kind in ('jsonl', 'simpleqa'):
    data.documents_file = config_dict.placeholder(str, required=True)
  if kind == 'facts':  # which teaches those of TriviaQA
    data.held_out_questions = ('natural_questions_open:validation',)
  return data


def _base(config, kind):
  """The memory, and the background that it is fitted to."""
  config.model = dict(
    memory_placement='beside',
    # As these models were trained. The values, which train, are float32.
    dtype='bfloat16',
    param_dtype='bfloat16',
  )
  config.memory = dict(
    num_slots=512**2,
    num_heads=4,
    k=16,
    key_dim=144,
    gated=False,
    # Running text spreads its reads more than names do.
    quorum={'world': 0.3, 'edits': 0.25}.get(kind, 0.2),
  )
  config.base = dict(
    kind='fitted',
    path=config_dict.placeholder(str, required=True),
    max_length=256,
  )
  # All of what ships, about once.
  config.background = dict(document='sequence', num_batches=108, batch_size=32)
