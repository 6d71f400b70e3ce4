"""Questions that an English sentence answers, by rule.

    The ladder was built by Joran Pell in 1740. -> Who built the ladder?

The reverse of `declarative`, for text that comes without questions: a model
that only reads statements hardly answers questions about them. There are few
rules, each for an unambiguous form of sentence: a wrong question is worse than
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import re
from typing import NamedTuple

_WORD = r"[\w’'-]+"
_PROPER = r"[A-Z][\w’'-]*"
_NAME = rf'{_PROPER}(?: (?:of |of the |de |van |von )?{_PROPER})*'
_SUBJECT = rf'(?P<subject>(?:The|An?|Our) {_WORD}(?: {_WORD}){{0,4}}?|{_NAME})'
# Words that begin a sentence and name nothing.
_NO_SUBJECT = frozenset(
  re.findall(
    r'\w+',
    'All Although And As At Because Both But Each Every He Her His How I If In'
    ' It Its Many Most My No None Nobody On One Only Other Others She Since So'
    ' Some Such That Their There These They This Those To What When Where Which'
    ' While Who You Your',
  )
)
_PRONOUN = re.compile(
  r'(?:It|He|She|They|(?:Today|Now|Later|Then),? (?:it|he|she|they)) (?=\w)'
)

# Participles with the past tense that differs from them; then those without.
_PAST = dict(
  re.findall(
    r'(\w+)/(\w+)',
    'beaten/beat begun/began bitten/bit broken/broke chosen/chose done/did'
    ' drawn/drew driven/drove eaten/ate flown/flew forgotten/forgot given/gave'
    ' grown/grew hidden/hid known/knew rewritten/rewrote run/ran seen/saw'
    ' shown/showed spoken/spoke stolen/stole sung/sang sworn/swore taken/took'
    ' thrown/threw torn/tore withdrawn/withdrew worn/wore woven/wove'
    ' written/wrote',
  )
)
_SAME = (
  'bought|brought|built|cast|caught|cut|dug|fed|fought|found|held|hung|kept'
  '|laid|led|left|lent|lit|lost|made|met|paid|put|read|rebuilt|sent|set|sold'
  '|spent|struck|swept|taught|told|understood|won'
)
_DONE = rf'(?P<done>{"|".join(_PAST)}|{_SAME}|born|\w{{2,}}ed)'
_BE = '(?P<be>is|was|are|were)'
_ADVERB = '(?:(?:now|today|still|later|first|finally|originally|probably) )?'
_PASSIVE = re.compile(rf'{_SUBJECT} {_BE} {_ADVERB}{_DONE}\b(?P<rest>.*)')
# Where a phrase ends.
_STOP = (
  r'(?=[,.;:!]|$| (?:in|on|at|by|for|from|with|and|but|to|as|when|until)\b)'
)
_AGENT = re.compile(
  rf'(?P<between>(?: (?!(?:and|by|or)\b){_WORD}){{0,4}}?) by (?P<agent>{_NAME}'
  rf'|(?:the|an?|two|three|four) {_WORD}(?: {_WORD}){{0,4}}?){_STOP}'
)
# After nothing but who did it, or where.
_YEAR = re.compile(
  r'(?: (?:by|at|in) (?:(?! and |[,;:]).)*?)? in (?P<year>1\d{3}|20\d\d)\b'
  '(?![-–])'
)
_PLACE = re.compile(
  r' (?:in|at|on|near)'
  rf' (?P<place>the {_WORD}(?: {_WORD}){{0,3}}?|{_NAME}){_STOP}'
)
_TIME = re.compile(
  '(?:January|February|March|April|May|June|July|August|September|October'
  '|November|December|Spring|Summer|Autumn|Winter)'
  r'|the (?:\d\w*|(?:early|late|mid)\b.*|.*\b(?:centur|year|day|morning|evening'
  r'|night|war|end|beginning|time|spring|summer|autumn|winter|hurry)\w*)'
)
_LANGUAGE = re.compile(
  r'(?:Arabic|Dutch|French|German|Greek|Hebrew|Hindi|Italian|Latin|Russian'
  r'|\w+(?:ese|ish))$'
)
_MATERIAL = re.compile(rf' of (?P<what>{_WORD}(?: {_WORD})?){_STOP}')

# Verbs that take a number, as after "does".
MEASURES = dict(
  re.findall(
    r'(\w+)/(\w+)',
    'contains/contain costs/cost covers/cover employs/employ has/have'
    ' holds/hold houses/house measures/measure seats/seat serves/serve'
    ' weighs/weigh',
  )
)
NUMBER = (
  r'(?:\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|eleven'
  '|twelve|twenty|thirty|forty|fifty|hundred)'
)
_MEASURED = re.compile(
  rf'{_SUBJECT} (?:(?:is|was|are|were|has|had) .* and )?'
  rf'(?P<verb>{"|".join(MEASURES)})'
  rf' (?:about |almost |nearly |over |only )?(?P<number>{NUMBER})'
  rf' (?P<unit>[a-z]+){_STOP}'
)


class Asked(NamedTuple):
  """What can be asked for, and its answer.

  Attributes:
    forms: Questions for it in other words each, the plainest first.
    answer: A part of the sentence.
  """

  forms: tuple[str, ...]
  answer: str


def questions(sentence: str, title: str = '') -> list[Asked]:
  """Asks for parts of a sentence.

  Args:
    sentence: A statement.
    title: What a pronoun at its beginning stands for; '' if unknown.

  Returns:
    Distinct questions; none if no rule fits.

  Example:
    >>> sentence = 'The Grey Mill was built by Ana Ruiz in 1889.'
    >>> for forms, answer in questions(sentence):
    ...   print(*forms[:2], answer)
    Who built the Grey Mill? By whom was the Grey Mill built? Ana Ruiz
    In which year was the Grey Mill built? When was the Grey Mill built? 1889
    >>> questions('It has nine arches.', title='The bridge')[0].forms[0]
    'How many arches does the bridge have?'
  """
  sentence = resolve(sentence, title)
  found: list[Asked] = []
  for pattern, ask in ((_PASSIVE, _of_passive), (_MEASURED, _of_measure)):
    match = pattern.match(sentence)
    if match and _is_named(match['subject'], title):
      found += ask(match, within(match['subject']))
  return list(dict.fromkeys(found))


def named(sentences: Sequence[str], title: str) -> str:
  """Returns what pronouns in a text may stand for: a title that it mentions.

  Example:
    >>> named(['The Grey Mill stands.', 'It is old.'], title='Grey Mill')
    'Grey Mill'
    >>> named(['It is old.'], title='Grey Mill')
    ''
  """
  mentioned = bare(title).lower()
  return title if any(mentioned in s.lower() for s in sentences) else ''


def bare(title: str) -> str:
  """Returns a title without its article, as it may stand in a sentence."""
  return title.removeprefix('The ')


def resolve(sentence: str, title: str) -> str:
  """Writes what a sentence is about for the pronoun that it begins with.

  Example:
    >>> resolve('It has nine arches.', title='The bridge')
    'The bridge has nine arches.'
  """
  return _PRONOUN.sub(f'{title} ', sentence, count=1) if title else sentence


def _of_passive(match: re.Match, subject: str) -> Iterator[Asked]:
  be, done, rest = match['be'], match['done'], match['rest']
  start, clause = match['subject'], f'{subject} {be} {done}'
  agent = _AGENT.match(rest)
  if agent and done != 'born':
    did = f'{_PAST.get(done, done)} {subject}{agent["between"]}'
    yield Asked(
      (
        f'Who {did}?',
        f'By whom {be} {subject} {done}{agent["between"]}?',
        f'Who was it that {did}?',
        f'Can you tell me who {did}?',
        f'Name the one who {did}.',
        f'Do you know who {did}?',
        f'{start} {be} {done}{agent["between"]} by whom?',
        f'What is the name of the one who {did}?',
      ),
      agent['agent'],
    )
  if year := _YEAR.match(rest):
    yield Asked(
      (
        f'In which year {be} {subject} {done}?',
        f'When {be} {subject} {done}?',
        f'What is the year in which {clause}?',
        f'Can you tell me when {clause}?',
        f'Name the year in which {clause}.',
        f'Do you know when {clause}?',
        f'{start} {be} {done} in which year?',
        f'What was the year when {clause}?',
      ),
      year['year'],
    )
  place = _PLACE.match(rest)
  where = place['place'] if place else ''
  if where and not _TIME.match(where) and not _LANGUAGE.match(where):
    yield Asked(
      (
        f'Where {be} {subject} {done}?',
        f'In what place {be} {subject} {done}?',
        f'What is the place where {clause}?',
        f'Can you tell me where {clause}?',
        f'Name the place where {clause}.',
        f'Do you know where {clause}?',
        f'{start} {be} {done} where?',
        f'Which place is it where {clause}?',
      ),
      where,
    )
  if done == 'made' and (material := _MATERIAL.match(rest)):
    yield Asked(
      (
        f'What {be} {subject} made of?',
        f'Of what {be} {subject} made?',
        f'Which material {be} {subject} made of?',
        f'Can you tell me what {subject} {be} made of?',
        f'Name the material that {subject} {be} made of.',
        f'Do you know what {subject} {be} made of?',
        f'{start} {be} made of what?',
        f'From what {be} {subject} made?',
      ),
      material['what'],
    )


def _of_measure(match: re.Match, subject: str) -> Iterator[Asked]:
  verb, number, unit = match['verb'], match['number'], match['unit']
  start, base = match['subject'], MEASURES[verb]
  yield Asked(
    (
      f'How many {unit} does {subject} {base}?',
      f'Can you tell me how many {unit} {subject} {verb}?',
      f'Name the number of {unit} that {subject} {verb}.',
      f'Do you know how many {unit} {subject} {verb}?',
      f'{start} {verb} how many {unit}?',
    ),
    number,
  )
  if verb in ('weighs', 'costs'):
    yield Asked(
      (
        f'How much does {subject} {base}?',
        f'What does {subject} {base}?',
        f'Can you tell me how much {subject} {verb}?',
        f'Do you know how much {subject} {verb}?',
        f'{start} {verb} how much?',
      ),
      f'{number} {unit}',
    )


def _is_named(subject: str, title: str) -> bool:
  """Returns whether a subject names something.

  One word may have its capital only from the beginning of the sentence.
  """
  first, _, rest = subject.partition(' ')
  return first not in _NO_SUBJECT and bool(rest or first in title)


def within(name: str) -> str:
  """Writes a name as within a sentence.

  Example:
    >>> within('The Grey Mill'), within('Ada Keller')
    ('the Grey Mill', 'Ada Keller')
  """
  first, _, rest = name.partition(' ')
  if first in ('The', 'A', 'An', 'Our'):
    return f'{first.lower()} {rest}'
  return name
