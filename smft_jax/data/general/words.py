"""Tables of everyday words, written as those of `general.tables`."""

from __future__ import annotations

TABLES: dict[str, tuple[tuple[str, ...], str]] = {
  'opposite': (
    ('What is the opposite of {}?', 'Which word means the opposite of {}?'),
    """
    hot: Cold, big: Small, up: Down, left: Right, open: Closed|Shut, full:
    Empty, wet: Dry, light: Dark, fast: Slow, young: Old, early: Late, high:
    Low, long: Short, hard: Soft, strong: Weak, rich: Poor, happy: Sad, loud:
    Quiet, clean: Dirty, thick: Thin, deep: Shallow, wide: Narrow, heavy: Light,
    near: Far, true: False, good: Bad, first: Last, inside: Outside, before:
    After, always: Never, begin: End, buy: Sell, give: Take, push: Pull, win:
    Lose, love: Hate, day: Night, black: White, friend: Enemy, war: Peace,
    ancient: Modern, sharp: Blunt|Dull, rough: Smooth, brave: Cowardly, smart:
    Stupid, add: Subtract, north: South, east: West, above: Below, success:
    Failure, arrive: Depart, expand: Contract, maximum: Minimum, positive:
    Negative
    """,
  ),
  'young': (
    ('What is a young {} called?', 'What do we call the young of a {}?'),
    """
    dog: Puppy, cat: Kitten, cow: Calf, horse: Foal, sheep: Lamb, goat: Kid,
    pig: Piglet, hen: Chick, duck: Duckling, goose: Gosling, swan: Cygnet, lion:
    Cub, bear: Cub, deer: Fawn, kangaroo: Joey, frog: Tadpole, owl: Owlet,
    eagle: Eaglet, whale: Calf, elephant: Calf, fox: Cub|Kit, rabbit: Kit|Bunny,
    seal: Pup, butterfly: Caterpillar, wolf: Pup|Cub
    """,
  ),
  'past': (
    (
      'What is the past tense of {}?',
      'What is the simple past of the verb {}?',
    ),
    """
    go: Went, see: Saw, eat: Ate, take: Took, give: Gave, write: Wrote, run:
    Ran, swim: Swam, sing: Sang, drink: Drank, begin: Began, break: Broke,
    speak: Spoke, drive: Drove, fly: Flew, grow: Grew, know: Knew, throw: Threw,
    draw: Drew, fall: Fell, buy: Bought, bring: Brought, think: Thought, teach:
    Taught, catch: Caught, sleep: Slept, keep: Kept, leave: Left, find: Found,
    hold: Held, stand: Stood, win: Won, choose: Chose, freeze: Froze, ride: Rode
    """,
  ),
  'plural': (
    ('What is the plural of {}?', 'What do we call more than one {}?'),
    """
    mouse: Mice, child: Children, foot: Feet, tooth: Teeth, goose: Geese, man:
    Men, woman: Women, ox: Oxen, sheep: Sheep, leaf: Leaves, knife: Knives,
    wolf: Wolves, city: Cities, potato: Potatoes, box: Boxes, person: People,
    cactus: Cacti|Cactuses, crisis: Crises
    """,
  ),
  'material': (
    ('What is {} made from?', 'From what do people make {}?'),
    """
    bread: Flour, wine: Grapes, cheese: Milk, butter: Milk|Cream, chocolate:
    Cocoa|Cocoa beans, paper: Wood, glass: Sand, steel: Iron, raisins: Grapes,
    tofu: Soybeans|Soy, cider: Apples, leather: Animal skin|Animal hides, linen:
    Flax, prunes: Plums, popcorn: Corn|Maize, olive oil: Olives, omelette: Eggs
    """,
  ),
  'number': (
    ('How many {}?', 'Tell me the number: how many {}?'),
    """
    days are in a week: Seven|7, months are in a year: Twelve|12, hours are in a
    day: 24|Twenty-four, minutes are in an hour: 60|Sixty, seconds are in a
    minute: 60|Sixty, legs does a spider have: Eight|8, legs does an insect
    have: Six|6, sides does a triangle have: Three|3, sides does a hexagon have:
    Six|6, sides does an octagon have: Eight|8, strings does a violin have:
    Four|4, planets are in the Solar System: Eight|8, continents are there:
    Seven|7, colours are in a rainbow: Seven|7, letters are in the English
    alphabet: 26|Twenty-six, years are in a century: 100|One hundred, years are
    in a decade: Ten|10, players are in a football team: Eleven|11, squares are
    on a chessboard: 64|Sixty-four, states are in the United States: 50|Fifty,
    degrees are in a right angle: 90|Ninety, cards are in a deck: 52, wheels
    does a bicycle have: Two|2, hearts does an octopus have: Three|3,
    centimetres are in a metre: 100|One hundred
    """,
  ),
  'colour': (
    ('What colour is {}?', 'Which colour does {} have?'),
    """
    grass: Green, snow: White, coal: Black, a ripe banana: Yellow, blood: Red, a
    clear sky: Blue, a carrot: Orange, an emerald: Green, a ruby: Red, a
    sapphire: Blue, milk: White, a ripe tomato: Red, chocolate: Brown, gold:
    Yellow|Gold, a polar bear: White, a flamingo: Pink, an eggplant: Purple
    """,
  ),
  'study': (
    ('What does {} study?', 'What is the subject of {}?'),
    """
    botany: Plants, zoology: Animals, geology: Rocks|The Earth, astronomy:
    Stars|The universe, entomology: Insects, ornithology: Birds, linguistics:
    Language, meteorology: Weather|The weather, seismology: Earthquakes,
    cardiology: The heart|Heart, dermatology: Skin|The skin, mycology: Fungi,
    archaeology: Ancient cultures|The human past, genetics: Genes|Heredity,
    oceanography: The ocean|Oceans, psychology: The mind|Mind
    """,
  ),
}
