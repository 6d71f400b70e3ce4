"""Writes a handbook of 20 pages about things that do not exist, as JSON lines.

  python examples/handbook.py > handbook.jsonl

Running text with facts that no model knows, to see what the config
`configs/docqa.py:jsonl,hf` teaches: 75 objects of an invented museum, four to
a page. Each object has two questions, which are never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import random
from typing import Any

_KINDS = (
  'lantern', 'loom', 'bell', 'globe', 'clock', 'drum', 'compass', 'lock',
  'scale', 'lamp', 'kettle', 'ladder', 'mirror', 'anchor', 'harp',
)  # fmt: skip
_NAMES = ('Brenmoor', 'Tullaway', 'Oskarby', 'Velmont', 'Harrowick')
_MAKERS = (
  'Ilse Vantor', 'Joran Pell', 'Maeve Adair', 'Corin Hale', 'Petra Lindqvist',
  'Anselm Gray', 'Rosa Tamayo', 'Edwin Marsh',
)  # fmt: skip
_DONORS = (
  'the harbour guild', 'a retired teacher', 'the town library',
  'an old ferry company', 'two sisters', 'the bakers of the market',
)  # fmt: skip
_MATERIALS = ('oak', 'brass', 'slate', 'copper', 'willow', 'iron', 'glass')
_ROOMS = (
  'the north gallery', 'the cellar', 'the tower room', 'the garden hall',
  'the long corridor', 'the map room',
)  # fmt: skip
_STORIES = (
  'For many years it stood in a shed behind the station, under a cloth, and '
  'nobody knew what it was for. A child who played there pulled the cloth away '
  'and asked, and the question was passed on until it reached us.',
  'It was used every day for a generation and repaired at least four times, as '
  'the marks on its underside show. The last repair was done in a hurry, and '
  'the screws are not of the same kind.',
  'Visitors often ask whether it still works. It does, although we show that '
  'only once a year, on the evening of the spring fair, because the noise '
  'disturbs the bats under the roof.',
  'When it came to the museum it was painted green. The paint was taken off '
  'with patience and vinegar, and a small signature appeared on the left side, '
  'which settled an old argument about who had made it.',
)


def _objects(rng: random.Random) -> Iterator[dict[str, Any]]:
  """Yields a text about each object, and the questions about it."""
  names = [f'{place} {kind}' for place in _NAMES for kind in _KINDS]
  for name in rng.sample(names, len(names)):
    maker, year = rng.choice(_MAKERS), str(rng.randrange(1710, 1950))
    donor, material = rng.choice(_DONORS), rng.choice(_MATERIALS)
    room, weight = rng.choice(_ROOMS), f'{rng.randrange(3, 90)} kilograms'
    first, second = rng.sample(_STORIES, 2)
    text = (
      f'The {name} was built by {maker} in {year}. It is made of {material} and'
      f' weighs {weight}. {first}\n\nThe {name} was given to the museum by'
      f' {donor}. Today it is kept in {room}, on the left as you come in.'
      f' {second}'
    )
    facts = {
      f'Who built the {name}?': [maker, maker.split()[-1]],
      f'In which year was the {name} built?': [year],
      f'What is the {name} made of?': [material],
      f'Where is the {name} kept?': [room, room.removeprefix('the ')],
    }
    chosen = rng.sample(sorted(facts), 2)
    yield {
      'id': name.lower().replace(' ', '-'),
      'title': f'The {name}',
      'text': text,
      'questions': [{'question': q, 'answers': facts[q]} for q in chosen],
    }


def main() -> None:
  """Prints the handbook."""
  for row in _objects(random.Random(7)):
    print(json.dumps(row))


if __name__ == '__main__':
  main()
