"""Turns English questions and their answers into statements, by rule.

    Who wrote Emma? + Jane Austen -> Jane Austen wrote Emma.

There are few rules, each for an unambiguous form of question: a wrong statement
is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterator
import re

# The text before an answer, and the text after it.
Frame = tuple[str, str]

_BE = '(?:is|was|are|were)'
_WHEN = '(?:when|(?:in )?(?:what|which) year|on (?:what|which) da(?:y|te))'
# The object of a question that ends like this is at its front.
_ENDS_OPEN = re.compile(
  r'\b(?:about|after|against|as|at|between|by|for|from|in|into|like|of|off|on|out|over'
  r'|to|under|with|\w+ing)$',
  re.IGNORECASE,
)
_SUBJECT = re.compile(
  r"(?:he|she|it|they|we|you|i|the|a|an|his|her|its|their|your|\S+'s)\b"
  r'|[A-Z]'
)
_AUXILIARY = re.compile(
  'can|could|had|has|have|may|might|must|shall|should|will|would'
)
_NO_VERB = re.compile('among|at|besides|did|do|does|else|from|in|of|on|the')
_PRONOUN = re.compile('he|i|it|she|that|there|these|they|this|those|we|you')

# Verbs that can follow "which river"; no word that is often a noun.
_VERB = (
  r'(?:became|began|belongs|borders|built|came|connects|contains|discovered'
  r'|flows|founded|gave|governs|held|hosted|houses|invented|joined|killed|lies'
  r'|lost|made|means|owns|played|produced|produces|published|recorded|released'
  r'|ruled|sang|separates|sits|starred|stars|took|united|won|wrote)'
)
_DONE = (
  r'(?:born|broadcast|built|buried|\w{2,}ed|discovered|drawn|fought|found|given'
  r'|held|known|made|said|sung|taken|written)'
)
_ADVERB = (
  '(?:(?:finally|first|initially|last|officially|originally|recently) )?'
)
_NAMED = r'(?:called|considered|known|named|nicknamed|spoken|used)'
# Nouns whose answer is a time or a measure, and words that are not nouns.
_NO_DOER = re.compile(
  'are|did|does|has|have|is|was|were|age|amount|century|date|day|decade|degree'
  '|distance|hour|length|month|number|percent|percentage|season|speed'
  '|temperature|time|week|weekday|year'
)
_PAST = dict(
  re.findall(
    r'(\w+)/(\w+)',
    'become/became begin/began close/closed collapse/collapsed die/died'
    ' disappear/disappeared end/ended erupt/erupted marry/married open/opened'
    ' retire/retired sink/sank start/started win/won',
  )
)
# A second verb: the subject does not end before it.
_CLAUSE = re.compile(r'\b(?:be|is|was|are|were|been)\b', re.IGNORECASE)
_YEAR = re.compile(r'(?:[12]\d{3}|\d{1,3} (?:AD|BC))')
_DAY = re.compile(r'(?:\d{1,2} [A-Z][a-z]+|[A-Z][a-z]+ \d{1,2})(?:,? \d{4})?')
_PLACED = re.compile(r'(?:at|in|near|on|under)\b', re.IGNORECASE)


def frames(question: str, answer: str) -> list[Frame]:
  """Finds sentences around the answer that answer the question.

  Args:
    question: A question, with or without its mark.
    answer: Its answer; it decides between 'in 1889' and 'on May 6'.

  Returns:
    Distinct pairs of the text before the answer and the text after it; none if
    no rule fits.

  Example:
    >>> for before, after in frames('Which river flows through Rome?', 'Tiber'):
    ...   print(f'{before}Tiber{after}')
    Tiber flows through Rome.
    The river that flows through Rome is Tiber.
  """
  asked = ' '.join(question.split()).rstrip('?').rstrip()
  # Two questions in one, or a quotation: no rule applies.
  if re.search(r'[?!;:"“]|\. ', asked):
    return []
  rules = (_who, _which, _what_is, _when_was, _when_did, _where)
  found = [frame for rule in rules for frame in rule(asked, answer)]
  return list(dict.fromkeys(found))


def _who(asked: str, answer: str) -> Iterator[Frame]:
  """Who wrote Emma -> [A] wrote Emma."""
  match = re.fullmatch(r'who (?P<verb>\w+) (?P<rest>.+)', asked, re.IGNORECASE)
  if not match or _ENDS_OPEN.search(asked):
    return
  verb, rest = match['verb'].lower(), match['rest']
  first = rest.split()[0].lower()
  if _NO_VERB.fullmatch(verb):
    return
  # 'Who has Ada married' asks for the object.
  if _AUXILIARY.fullmatch(verb) and _SUBJECT.match(rest):
    return
  is_form = re.fullmatch(_BE, verb)
  # 'Who was Ada married' has its subject after the verb.
  if is_form and (_PRONOUN.fullmatch(first) or re.search(rf'\b{_DONE}$', rest)):
    return
  yield '', f' {verb} {rest}.'
  if not is_form:
    yield f'The one who {verb} {rest} is ', '.'


def _which(asked: str, answer: str) -> Iterator[Frame]:
  """Which river flows through Rome -> [A] flows through Rome."""
  match = re.fullmatch(
    rf'(?:which|what) (?P<noun>[a-z]+) (?P<predicate>(?:{_VERB}|{_BE} {_NAMED}'
    rf'|{_BE} the (?:capital|first|last|largest|only|\w+est)) .+)',
    asked,
    re.IGNORECASE,
  )
  if not match or _NO_DOER.fullmatch(match['noun']) or _ENDS_OPEN.search(asked):
    return
  # 'Which film released in 1999 won' has another verb.
  if re.match(rf'(?:{_VERB}) (?:by|in|on|as)\b', match['predicate']):
    return
  yield '', f' {match["predicate"]}.'
  yield f'The {match["noun"]} that {match["predicate"]} is ', '.'


def _what_is(asked: str, answer: str) -> Iterator[Frame]:
  """What is the capital of France -> The capital of France is [A]."""
  match = re.fullmatch(
    rf'(?:what|who) (?P<be>{_BE}) (?P<what>the .+)', asked, re.IGNORECASE
  )
  if not match or _ENDS_OPEN.search(asked):
    return
  what = match['what']
  if re.search(rf'\b{_DONE}$', what) or re.search(r'\bdo(?:es)?\b', what):
    return
  yield f'{_capital(what)} {match["be"].lower()} ', '.'


def _when_was(asked: str, answer: str) -> Iterator[Frame]:
  """When was the tower built -> The tower was built in [A]."""
  begin = _passive(_WHEN, asked)
  if begin and _time_preposition(answer):
    yield f'{begin} {_time_preposition(answer)} ', '.'


def _when_did(asked: str, answer: str) -> Iterator[Frame]:
  """When did the war end -> The war ended in [A]."""
  match = re.fullmatch(rf'{_WHEN} did (?P<clause>.+)', asked, re.IGNORECASE)
  if not match or not _time_preposition(answer):
    return
  words = match['clause'].split()
  verbs = [i for i, word in enumerate(words) if word in _PAST]
  # One of two may be a noun, as in 'when did the open start'. A long question
  # has further verbs, which `_PAST` lacks.
  if len(verbs) != 1 or verbs[0] == 0 or len(words) > 12:
    return
  words[verbs[0]] = _PAST[words[verbs[0]]]
  yield f'{_capital(" ".join(words))} {_time_preposition(answer)} ', '.'


def _where(asked: str, answer: str) -> Iterator[Frame]:
  """Where was Ada born -> Ada was born in [A]."""
  begin = _passive('where', asked)
  if begin:
    preposition = '' if _PLACED.match(answer) else 'in '
    yield f'{begin} {preposition}', '.'


def _passive(asks: str, asked: str) -> str:
  """'When was the tower built' -> 'The tower was built'; '' if in doubt."""
  match = re.fullmatch(
    rf'{asks} (?P<be>{_BE}) (?P<subject>.+?) (?P<done>{_ADVERB}{_DONE})',
    asked,
    re.IGNORECASE,
  )
  if not match or _CLAUSE.search(match['subject']):
    return ''
  return f'{_capital(match["subject"])} {match["be"].lower()} {match["done"]}'


def _time_preposition(answer: str) -> str:
  """Returns the word before a time; '' if in doubt."""
  if _YEAR.fullmatch(answer):
    return 'in'
  return 'on' if _DAY.fullmatch(answer) else ''


def _capital(text: str) -> str:
  return text[0].upper() + text[1:]
