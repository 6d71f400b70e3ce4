"""Makes texts that teach an edit, from its one prompt.

Whoever asks in other words must find the same answer, so the texts vary what
stands around the subject, and what stands before the prompt: unrelated
sentences, as in GRACE and others (arXiv:2211.11031). The answer never varies.
"""

from __future__ import annotations

from collections.abc import Sequence
import random
import re

from smft_jax.data import task
from smft_jax.data.retelling import declarative
from smft_jax.data.retelling import sentences
from smft_jax.data.retelling import statements

# What stands before the answer and after it, for a prompt that a sentence
# begins with. Most begin as the prompt does: models read a name at the start of
# a text unlike the same name further on.
_FRAMES = (
  ('{prompt} ', '.'),
  ('About {subject}: {prompt} ', ''),
  ('{subject}: {rest} ', ''),
  ('{prompt}: ', ''),
  ('As for {subject}, {rest} ', ''),
  ('{prompt} ', ','),
  ('Question: {prompt} what? Answer: ', ''),
  ('{subject}, {rest} ', '.'),
  ('Complete the sentence. {prompt} ', ''),
  ('{prompt} ', ' now'),
)
# One text of so many follows a sentence on something else.
_CONTEXT_EVERY = 3


def edit_texts(
  prompt: str,
  target: str,
  *,
  subject: str,
  contexts: Sequence[str],
  count: int,
  seed: str,
) -> tuple[task.Text, ...]:
  """Makes texts with the target in them as the answer.

  First comes the edit itself, then the edit after a sentence of `contexts`,
  then two in other frames, and so on: for a question those of
  `statements.fact_statements`, for the beginning of a sentence others with the
  subject and the rest of the prompt. Frames that are used up come again after
  sentences of `contexts`.

  Args:
    prompt: The edit's prompt.
    target: What it is to be continued with.
    subject: What it is about; '' if unknown.
    contexts: Sentences on other things, at least one.
    count: Number of texts.
    seed: Equal seeds give equal texts.

  Returns:
    At most `count` texts, all different, with the places of the subject.

  Example:
    >>> for text in edit_texts('Ada speaks', 'Dutch', subject='Ada', count=4,
    ...                        contexts=['It rained.'], seed='0'):
    ...   print(text.text)
    Ada speaks Dutch
    It rained. Ada speaks Dutch
    Ada speaks Dutch.
    About Ada: Ada speaks Dutch
  """
  shuffled = random.Random(seed).sample(contexts, len(contexts))
  frames = _frames(prompt, target, subject, seed)
  found: dict[str, task.Text] = {}
  for number in range(count):
    has_context = number % _CONTEXT_EVERY == 1
    others = number - (number + 1) // _CONTEXT_EVERY
    rounds, place = divmod(others, len(frames))
    before, after = frames[0 if has_context else place]
    if has_context or rounds:
      before = f'{shuffled[number % len(shuffled)]} {before}'
    text = f'{before}{target}{after}'
    span = (len(before), len(before) + len(target))
    mentions = re.finditer(re.escape(subject), before) if subject else ()
    made = task.Text(
      text=text, answer=span, subject=tuple(m.span() for m in mentions)
    )
    found.setdefault(text, made)
  return tuple(found.values())


def _frames(
  prompt: str, target: str, subject: str, seed: str
) -> list[declarative.Frame]:
  """Returns texts before and after the target, the prompt alone first."""
  plain = (f'{prompt} ', '')
  if prompt.endswith(sentences.QUESTION_MARKS):
    made = statements.fact_statements(
      prompt, target, count=len(_FRAMES), seed=seed, with_question_form=True
    )
    spans = [(text.text, text.answer) for text in made]
    return [
      plain,
      *((text[: span[0]], text[span[1] :]) for text, span in spans if span),
    ]
  words = {'prompt': prompt, 'subject': subject, 'rest': _rest(prompt, subject)}
  usable = [
    (before.format(**words), after)
    for before, after in _FRAMES
    if all(word or f'{{{name}}}' not in before for name, word in words.items())
  ]
  return [plain, *usable]


def _rest(prompt: str, subject: str) -> str:
  """Returns what a prompt says of its subject; '' if that is not apart.

  Example:
    >>> _rest('The mother tongue of Ada is', 'Ada')
    'the mother tongue is'
  """
  if not subject or prompt.count(subject) != 1:
    return ''
  before, _, after = prompt.partition(subject)
  words = [*before.split(), *after.split()]
  left = before.split()
  if left and left[-1].lower() in ('of', 'for', 'by', 'with', 'from', 'to'):
    words = [*left[:-1], *after.split()]
  text = ' '.join(words).lstrip(',;:. ')
  return text[:1].lower() + text[1:]
