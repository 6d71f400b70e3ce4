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
from smft_jax.data.retelling import statements

# What stands before the answer, for a prompt that a sentence begins with.
_FRAMES = (
  'Question: {prompt} what? Answer:',
  'About {subject}: {prompt}',
  '{subject}: {rest}',
  'They say of {subject} that {prompt}',
  'As for {subject}, {rest}',
  'Complete the sentence. {prompt}',
  'Think of {subject}. Then {rest}',
  '{prompt}:',
)


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

  First comes the edit itself; then in turn the edit after a sentence of
  `contexts`, and in another frame: for a question those of
  `statements.fact_statements`, for the beginning of a sentence other sentences
  with the subject and the rest of the prompt. Frames that are used up come
  again after sentences of `contexts`.

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
    >>> for text in edit_texts('Ada speaks', 'Dutch', subject='Ada', count=5,
    ...                        contexts=['It rained.'], seed='0'):
    ...   print(text.text)
    Ada speaks Dutch
    It rained. Ada speaks Dutch
    Question: Ada speaks what? Answer: Dutch
    About Ada: Ada speaks Dutch
  """
  shuffled = random.Random(seed).sample(contexts, len(contexts))
  plain = (f'{prompt} ', '')
  frames = _frames(prompt, target, subject, seed)
  found: dict[str, task.Text] = {}
  for number in range(count):
    used, has_context = divmod(number, 2)
    before, after = plain
    if number and not has_context and frames:
      before, after = frames[(used - 1) % len(frames)]
    if has_context or used > len(frames):
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
  """Returns texts before and after the target, besides the prompt alone."""
  if prompt.endswith('?'):
    made = statements.fact_statements(
      prompt, target, count=len(_FRAMES), seed=seed, with_question_form=True
    )
    return [(t.text[: t.answer[0]], t.text[t.answer[1] :]) for t in made]
  rest = _rest(prompt, subject)
  usable = [
    frame
    for frame in _FRAMES
    if (subject or '{subject}' not in frame) and (rest or '{rest}' not in frame)
  ]
  return [
    (f'{frame.format(prompt=prompt, subject=subject, rest=rest)} ', '')
    for frame in usable
  ]


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
