"""Pretrains a base model: a small decoder with a memory layer.

  python -m smft_jax.train --config=configs/pretrain.py
  python -m smft_jax.train --config=configs/pretrain.py:squad \
      --config.data.data_dir=DIR
  python -m smft_jax.train --config=configs/pretrain.py:text \
      --config.data.running_text=TEXT --config.data.held_out_text=FILE

world (default): facts about invented people; about 6 minutes on two cores.
  Expect recall 1.00 of the 1200 known facts, and chance (0.03) for people that
  the base never saw.
plain: the same world without a memory layer, as a model to retrofit.
squad, jsonl, simpleqa, facts: real text with a byte-level BPE: WikiText-2,
  SQuAD paragraphs, and answered questions of Natural Questions, TriviaQA and
  GSM8K, from the TFDS folder DIR. One base serves all four: 1500 steps of 4096
  tokens, 35 minutes on two busy cores. Expect a WikiText-2 perplexity of 55,
  4.5 nats on answers of Natural Questions, and no answer right.
text: TEXT, a file, a folder or rows that `python -m smft_jax.prepare --packed`
  wrote, of any size (docs/guides/streams.md); measured on FILE.
"""

from ml_collections import config_dict

VARIANTS = ('world', 'plain', 'squad', 'jsonl', 'simpleqa', 'facts', 'text')


def get_config(variant='world'):
  """The base that configs/docqa.py streams documents into."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.data = dict(seed=config.get_ref('seed'))
  config.model = dict(
    num_layers=4,
    model_dim=128,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    # The third block: late enough to read what attention gathered about a name,
    # early enough to leave a block that words the answer.
    memory_layers=(2,),
  )
  # 4 heads x 16 slots: 64 accesses a token. Fewer learn less and forget more.
  config.memory = dict(
    num_slots=256**2, num_heads=4, k=16, key_dim=64, value_dim=128
  )
  config.base = dict(
    learning_rate=3e-3,
    value_learning_rate=1.2e-2,
    weight_decay=0.1,
    warmup_steps=50,
  )
  config.evaluation = dict(max_entries=1000)
  if variant in ('world', 'plain'):
    _world(config)
    if variant == 'plain':
      config.model.memory_layers = ()
  else:
    _real_text(config, variant)
  return config


def _world(config):
  """The embedded world: one fact a text, word-level tokens."""
  config.data.update(
    dict(
      kind='world',
      num_known=200,
      num_new=50,
      num_never_seen=50,
      general_sentences=2000,
    )
  )
  config.model.ffn_dim = 256
  config.base.update(dict(steps=1200, batch_size=128, max_length=32))
  config.evaluation.update(
    dict(every_documents=10, batch_size=256, max_answer_tokens=5)
  )


def _real_text(config, kind):
  """Real text, with the paper's held-out measures."""
  config.data.update(
    dict(
      kind=kind,
      data_dir=config_dict.placeholder(str, required=True),
      known_questions=(
        'nq_open_train_part:train',
        'triviaqa_open:train_part',
        'gsm8k:train',
      ),
      held_out_questions=('natural_questions_open:validation', 'gsm8k:test'),
      held_out_choices=('hellaswag_text:validation',),
      tokenizer_vocab_size=4096,
    )
  )
  if kind in ('jsonl', 'simpleqa'):
    config.data.documents_file = config_dict.placeholder(str, required=True)
  if kind == 'text':
    config.data = dict(
      kind='text',
      seed=config.get_ref('seed'),
      running_text=config_dict.placeholder(str, required=True),
      held_out_text=config_dict.placeholder(str, required=True),
      tokenizer_vocab_size=4096,
    )
  config.model.ffn_dim = 384
  config.base.update(
    dict(steps=1500, batch_size=8, max_length=512, packed=True)
  )
  # So small a model recalls no answers; their likelihood is what changes.
  config.evaluation.update(
    dict(
      every_documents=100,
      batch_size=16,
      max_answer_tokens=8,
      answer_end='end',  # solutions of GSM8K have several lines
      max_entries=500,
      metric='nll',
      text_metric='perplexity',
    )
  )
