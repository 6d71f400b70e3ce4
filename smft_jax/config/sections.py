"""Sections of a config that belong to no other part of the library."""

from __future__ import annotations

import dataclasses
from typing import Literal

from smft_jax import schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseConfig:
  """How the base model is pretrained, or healed.

  Attributes:
    kind: 'trained', the kind of base.
    path: Hugging Face folder or GGUF file to heal, or '' to pretrain from
      scratch. Weights that are healed get memory layers, and only these train.
    steps: Training steps.
    batch_size: Rows in a batch.
    learning_rate: Peak rate of all parameters but the value table.
    value_learning_rate: Peak rate of the value table.
    weight_decay: AdamW's decay of matrices; the value table does not decay.
    warmup_steps: Steps of linear warmup.
    max_length: Tokens in a row; longer texts are split.
    packed: Put several short texts into one row.
    checkpoint_every: Steps between checkpoints.
    cache_dir: Folder of finished bases; '' means ~/.cache/smft_jax.
  """

  kind: Literal['trained'] = 'trained'
  path: str = ''
  steps: int
  batch_size: int
  learning_rate: float
  value_learning_rate: float
  weight_decay: float = 0.0
  warmup_steps: int = 0
  max_length: int
  packed: bool = False
  checkpoint_every: int = 500
  cache_dir: str = ''

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'steps', 'batch_size', 'checkpoint_every')
    schema.at_least(2, self, 'max_length')
    schema.at_least(0, self, 'weight_decay', 'warmup_steps')
    schema.positive(self, 'learning_rate', 'value_learning_rate')

  @property
  def doing(self) -> str:
    """What makes the base: 'pretraining' or 'healing'."""
    return 'healing' if self.path else 'pretraining'


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedBaseConfig:
  """A pretrained model with a memory that is fitted, not trained.

  Its keys are fitted to the texts of `config.background`, its values are zero;
  see `retrofit.fit_memory`. `config.model.memory_layers` defaults to one block
  at a quarter of the depth, `config.memory.value_dim` to the model's.

  Attributes:
    kind: 'fitted', the kind of base.
    path: Hugging Face folder or GGUF file.
    max_length: Tokens in a row of the background; longer texts are split.
    cache_dir: Folder of fitted keys; '' means ~/.cache/smft_jax.
  """

  kind: Literal['fitted'] = 'fitted'
  path: str
  max_length: int
  cache_dir: str = ''

  def __post_init__(self) -> None:
    schema.at_least(2, self, 'max_length')
    if not self.path:
      raise schema.UserError(
        'path is empty: give a Hugging Face folder or a GGUF file'
      )

  @property
  def doing(self) -> str:
    """What makes the base."""
    return 'fitting'


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackgroundConfig:
  """The background corpus, whose document frequencies rank slots.

  Attributes:
    num_batches: Batches to count.
    batch_size: Rows in a batch.
    document: Unit of the document frequency: a 'sequence' or a 'batch'.
    corpus: 'pretraining', 'stream' (the documents to learn), the name of one of
      the task's text sets, or a folder of prepared rows
      (`python -m smft_jax.prepare`).
    counts: File with the counts of all batches, merged from those of several
      jobs (`python -m smft_jax.background`); '' counts them.
  """

  num_batches: int
  batch_size: int
  document: Literal['sequence', 'batch'] = 'sequence'
  corpus: str = 'pretraining'
  counts: str = ''

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'num_batches', 'batch_size')


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
  """The target stream: each document is learned once, in order.

  Attributes:
    steps_per_document: Training steps on each document.
    batch_size: Rows in a batch.
    micro_batch_size: Rows of a batch whose activations are in memory at once;
      divides `batch_size`. None takes all. It changes rounding only.
    context_weight: Loss weight of tokens that are not part of an answer.
    answer_weight: Loss weight of answer tokens.
    max_documents: Documents to learn; None learns all of them.
    max_length: Tokens in a row; None takes `config.base.max_length`.
    packed: Put several short texts into one row, so that less of a batch is
      padding; needs `max_length`. Accesses are counted token by token, so that
      rankings do not change; a background still counts text by text.
    checkpoint_every: Documents between checkpoints, in addition to those at
      each evaluation.
  """

  steps_per_document: int
  batch_size: int
  micro_batch_size: int | None = None
  context_weight: float = 1.0
  answer_weight: float = 1.0
  max_documents: int | None = None
  max_length: int | None = None
  packed: bool = False
  checkpoint_every: int | None = None

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'steps_per_document', 'batch_size')
    schema.at_least(1, self, 'max_documents', 'checkpoint_every')
    schema.at_least(1, self, 'micro_batch_size')
    if self.micro_batch_size and self.batch_size % self.micro_batch_size:
      raise schema.UserError(
        f'micro_batch_size = {self.micro_batch_size} does not divide batch_size'
        f' = {self.batch_size}'
      )
    schema.at_least(2, self, 'max_length')
    if self.packed and self.max_length is None:
      raise schema.UserError('packed needs max_length, the length of its rows')
    schema.at_least(0, self, 'context_weight', 'answer_weight')
    if not self.context_weight and not self.answer_weight:
      raise schema.UserError(
        'context_weight and answer_weight are both 0, so nothing would be'
        ' learned'
      )

  @property
  def num_micro_batches(self) -> int:
    """The parts of a batch whose activations are in memory one by one."""
    return self.batch_size // (self.micro_batch_size or self.batch_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
  """Evaluation along the stream.

  Attributes:
    every_documents: Documents between evaluations.
    batch_size: Rows in a batch.
    max_entries: Entries used of each evaluation set; of texts, rows of at most
      `config.base.max_length` tokens. None uses all.
    max_documents: Documents of the stream that are measured, drawn at random
      from all that it will have, the same at each evaluation; of them
      `max_entries` questions. None draws from the questions on all documents.
    max_answer_tokens: Tokens to decode for an answer.
    answer_end: Where an answer ends: at the end of its first 'line', or at the
      'end' token only. The end token ends every answer.
    prompt_format: How questions are asked: 'plain' continues their prompts,
      'few_shot' puts solved questions before them, 'chat' takes the chat
      template of the base's tokenizer.
    shots: Solved questions of a 'few_shot' prompt: the first ones of the
      question's own set. None asks for the same fact. Questions on the
      documents are asked without and, as the set 'target_after_examples',
      those in the hardest phrasings once more with them.
    metric: Headline metric of question sets.
    text_metric: Headline metric of text sets.
  """

  every_documents: int
  batch_size: int
  max_entries: int | None = None
  max_documents: int | None = None
  max_answer_tokens: int = 16
  answer_end: Literal['line', 'end'] = 'line'
  prompt_format: Literal['plain', 'few_shot', 'chat'] = 'plain'
  shots: int = 0
  metric: Literal['recall', 'f1', 'nll'] = 'recall'
  text_metric: Literal['nll', 'perplexity'] = 'nll'

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'every_documents', 'batch_size')
    schema.at_least(1, self, 'max_entries', 'max_documents')
    schema.at_least(1, self, 'max_answer_tokens')
    schema.at_least(0, self, 'shots')
    if self.prompt_format == 'few_shot' and not self.shots:
      raise schema.UserError(
        "prompt_format = 'few_shot' needs shots: give their number, such as 4"
      )
    if self.prompt_format != 'few_shot' and self.shots:
      raise schema.UserError(
        f'shots = {self.shots} is for few-shot prompts: give prompt_format ='
        " 'few_shot'"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """The devices of a run; see `smft_jax.sharded.layout`.

  Attributes:
    data: Replicas, which split each batch.
    fsdp: Replicas that also split the dense weights.
    memory: Parts of the value table and of the sub-keys.
    split: Split the value table by 'rows' or by value 'dims'.
    subkeys: Split the sub-keys by 'subkeys' or by 'heads'.
  """

  data: int = 1
  fsdp: int = 1
  memory: int = 1
  split: Literal['rows', 'dims'] = 'rows'
  subkeys: Literal['subkeys', 'heads'] = 'subkeys'

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'data', 'fsdp', 'memory')
