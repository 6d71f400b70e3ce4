"""Plain prose about the world: half of it background, half held out."""

from __future__ import annotations

from smft_jax.data import task
from smft_jax.data.retelling import sentences

# Longer sentences would fill the rows of a lesson with what is not taught.
_MOST_CONTEXT_CHARS = 60


def background() -> tuple[task.Text, ...]:
  """Returns the first, third, ... paragraph."""
  return _paragraphs()[::2]


def held_out() -> tuple[task.Text, ...]:
  """Returns the second, fourth, ... paragraph.

  Example:
    >>> held_out()[0].text[:25]
    'Bread is made from flour,'
  """
  return _paragraphs()[1::2]


def short_sentences() -> list[str]:
  """Returns sentences of the background, to stand before what is taught."""
  found = [
    s for text in background() for s in sentences.split_sentences(text.text)
  ]
  return [s for s in found if len(s) <= _MOST_CONTEXT_CHARS]


def _paragraphs() -> tuple[task.Text, ...]:
  return tuple(
    task.Text(text=' '.join(paragraph.split()))
    for paragraph in _PROSE.split('\n\n')
  )


_PROSE = """
A lighthouse is a tower with a bright lamp at its top. It warns ships of rocks
and shallow water and helps sailors to find a harbour at night. Early lamps
burned wood or oil. Most lighthouses today are automatic and have no keeper.

Bread is made from flour, water and salt. Yeast makes the dough rise, because it
eats the sugar in the flour and gives off gas. The baker lets the dough rest,
shapes it into loaves and puts them into a hot oven for about forty minutes.

Bees live in colonies of many thousands. Most of them are workers, which collect
nectar, feed the young and guard the hive. A single queen lays all the eggs. In
winter the bees form a tight ball around her and live on stored honey.

A glacier is a slow river of ice. It forms where more snow falls in winter than
melts in summer. Under its own weight the old snow turns into ice and begins to
move downhill, carrying stones that scratch the rock beneath it.

The bicycle was developed in the nineteenth century. The first machines had no
pedals, and riders pushed themselves along with their feet. Chains, brakes and
tyres filled with air came later and made the bicycle safe and comfortable for
everyone.

Coffee grows on small trees in warm countries. Each red fruit holds two green
seeds, which are dried and then roasted until they are brown. The taste depends
on the plant, on the soil and on the heat of the roasting.

Rain begins when warm, wet air rises and cools. The water in it gathers on tiny
grains of dust and forms drops. When the drops in a cloud are too heavy for the
air to carry, they fall to the ground.

Paper was first made in China about two thousand years ago. Workers beat bark
and old cloth into a wet pulp, spread it on a screen and let it dry. The craft
travelled slowly to the west along the roads of the traders.

A volcano is an opening in the crust of the Earth. Hot melted rock rises through
it from below. Some volcanoes pour out slow streams of lava, while others
explode and throw ash high into the air, where the wind carries it for days.

Owls hunt at night. Their large eyes gather much light, but they cannot move in
the head, so an owl must turn its whole neck to look around. Soft feathers let
it fly without a sound, and its ears find a mouse under the snow.

The piano has strings that are struck by small hammers covered with felt. The
player presses the keys softly or firmly, and the sound is quiet or loud. This
was new when the instrument was invented in Italy around the year 1700.

Salt was once so valuable that it was used as money. People gained it from the
sea, from salty springs and from mines deep in the mountains. It kept meat and
fish from spoiling in the time before there were refrigerators.

The heart is a muscle that pumps blood through the body. It beats about seventy
times in a minute when a person is at rest. Valves between its chambers open and
close, so that the blood can flow in only one direction.

Bridges carry roads over rivers and valleys. The oldest were simple trunks of
trees. Roman builders used arches of stone, many of which still stand. Modern
bridges often hang from steel cables that are stretched between tall towers.

Potatoes came to Europe from South America in the sixteenth century. At first
many people grew them only for their flowers. Later they became a common food,
because they give a large harvest even on poor soil and in cool weather.

The Moon moves around the Earth in a little less than a month. It gives no light
of its own but reflects that of the Sun. Its pull raises and lowers the water of
the oceans twice a day, which we call the tides.

A library collects books and lends them to readers. In the ancient world scrolls
were kept in temples and palaces. After printing had made books cheap, towns
began to open libraries to all people, whatever their income.

Cheese keeps the goodness of milk for months. The cheesemaker warms the milk and
adds rennet, which makes it thick. The curd is cut, pressed and salted. Some
kinds ripen for years in cool cellars, where they become hard and strong.

Sand dunes are hills that are built by the wind. Grains roll and jump over the
surface and come to rest on the side away from the wind. In this way a dune can
move many metres in a year and cover fields and roads.

Penguins are birds that cannot fly. Their wings work like fins, and they swim
faster than most fish. Thick feathers and a layer of fat keep them warm. In many
species the parents take turns to sit on the eggs and to fetch food.

The first photographs needed an exposure of several hours. A metal plate with a
coat that was sensitive to light was put into a dark box with a small hole.
Later the plates became quicker, and people could be photographed while they sat
still.

Soap is made by boiling fat with a strong alkali, for instance from the ash of
wood. One end of its molecules clings to water and the other to grease, so that
dirt is lifted from the skin and washed away.

Trees grow a new layer of wood every year. In spring the cells are wide and
pale, in summer narrow and dark, so a ring can be seen. By counting the rings of
a trunk we learn the age of the tree and which years were dry.

A canal is a river made by people. Where the land rises, boats pass through
locks, chambers with gates in which the water is let in or out. Before the
railway, canals were the cheapest way to move coal, grain and stone.

Spiders have eight legs and no wings. Many of them spin webs of silk, which is
stronger than a steel thread of the same weight. They feel the shaking of the
web when an insect is caught, run to it and wrap it up.

Glass is made by melting sand with soda and lime. While it is hot it can be
blown, poured or drawn into threads. It was a luxury for a long time, and only
rich houses had windows that let in light and kept out the wind.

A desert is a place with very little rain. Not all deserts are hot: parts of the
far north and south are so dry that they count as deserts, too. Plants there
have deep roots or thick leaves in which they store water.

Chess is played by two people on a board of sixty-four squares. Each has sixteen
pieces, which move in different ways. The game came from India through Persia to
Europe, and its rules have hardly changed for five hundred years.

The steam engine turned heat into motion. Water was boiled in a closed vessel,
and the steam pushed a piston to and fro. Engines first pumped water out of
mines. Soon they drove mills, ships and trains and changed the way people
worked.

Mushrooms are neither plants nor animals. What we see is only the fruit of a
fungus, whose fine threads run through the soil or through wood. They break down
dead leaves and trunks and return their substances to the ground.

Earthquakes happen when large plates of the crust of the Earth slide past each
other. They stick for years while the strain grows, and then move with a jerk.
Houses with light and flexible frames stand the shaking best.

Silk comes from the cocoon of a moth. The caterpillar eats the leaves of the
mulberry tree and then spins a single thread that may be a kilometre long. For
centuries only the Chinese knew how to unwind it and weave it into cloth.

Whales breathe air, although they live in the sea. They come to the surface,
blow out the used air in a cloud of spray and dive again. The largest of them
feed on tiny animals, which they strain from the water.

A compass has a small magnet that can turn freely. One end points to the north,
because the Earth itself is a weak magnet. With this simple tool sailors could
hold their course when clouds covered the Sun and the stars.

The tomato is a fruit in the language of botany and a vegetable in the kitchen.
It needs warmth and much light. Gardeners tie the plants to sticks and pinch out
the side shoots, so that the fruits become large and ripen early.

A theatre in ancient Greece was built into the slope of a hill. The seats of
stone formed half a circle around a round place, where the chorus sang and
danced. Actors wore masks, and even those in the last row could hear them well.

Wool is the hair of sheep. It is cut once a year, washed, combed and spun into
yarn. Because its fibres are curled, they hold much air, and a coat of wool
keeps a person warm even when it is wet.

The telescope was invented in the Netherlands by makers of spectacles. Two
lenses in a tube make far things look near. Soon people turned it to the sky and
saw mountains on the Moon, spots on the Sun and many stars that were unknown
before.

Rice is the main food of half of all people. It is often grown in fields that
are flooded, since the water keeps down weeds. Farmers set the young plants by
hand or with machines, and they drain the field before the harvest.

A river begins at a spring, in a lake or under a glacier. In the mountains it is
fast and cuts a deep valley. In the plain it slows down, bends from side to side
and drops the sand and mud that it has carried.

Clocks with wheels and weights appeared in the towers of Europe in the Middle
Ages. They had only one hand and were often wrong by a quarter of an hour. The
pendulum, added in the seventeenth century, made them exact to a few seconds.

Ants follow trails of scent. A worker that has found food marks its way home,
and others walk the same way and mark it again. If the food is used up, the
scent fades, and the ants look for something new.

Concrete is a mixture of cement, sand, gravel and water. It can be poured into
any form and becomes as hard as stone. The Romans already used it for harbours
and domes. Today steel bars are laid in it, so that it can bear tension.

The olive tree can live for more than a thousand years. It stands heat and
drought but no hard frost. Its fruits are bitter when they are raw. They are
laid in salt water to be eaten or pressed to give oil.

Snow is made of crystals of ice with six arms. The form of a crystal depends on
the cold and on the moisture of the air through which it falls. A blanket of
snow holds much air and protects plants from the frost.

A market was held in many towns once a week. Farmers brought eggs, butter and
vegetables, and craftsmen sold pots, shoes and cloth. The town took a small fee
from each stall and saw to it that weights and measures were right.

Horses were tamed on the plains of Asia more than five thousand years ago. They
carried riders, pulled carts and ploughs and made long journeys short. A horse
sleeps mostly while standing and lies down for only a few hours.

Electric current is a flow of tiny charges through a wire. Copper lets it pass
easily, while rubber and glass stop it. In a power station a turbine turns a
magnet inside a coil, and this motion drives the current to our homes.

The violin has four strings and is played with a bow. Its body of thin spruce
and maple makes the sound strong. Makers in northern Italy built violins three
hundred years ago that players still prefer to most new ones.

Migrating birds fly thousands of kilometres each year. They find their way by
the Sun, by the stars and by the magnetism of the Earth. Before they leave they
eat as much as they can, and some double their weight.

Printing with movable letters began in Europe in the fifteenth century. Each
letter was cast in metal, set in lines and used again for the next page. A
printer could make more books in a week than a scribe in a whole life.

Coral reefs are built by very small animals. Each lives in a cup of lime, and
when it dies, others build on top of it. Reefs grow only in clear and warm water
with much light, and they shelter a great number of fish.

Maps show the land from above. Since the Earth is round and paper is flat, every
map is wrong in some way: either the shapes or the sizes are changed. Map makers
choose the kind of map that suits its purpose.

Tea is made from the leaves of a bush that grows in the hills of Asia. For green
tea the leaves are heated soon after picking. For black tea they are rolled and
left in moist air until they turn dark.

Wind turbines turn the motion of the air into electricity. The long blades are
shaped like the wings of an aircraft. A computer turns them into the wind and
stops them in a storm. They stand on hills, in plains and out at sea.

A school in a village often had a single room. Children of all ages sat there
together, and the older ones helped the younger. They wrote on slates with
chalk, since paper was too expensive for exercises.

Elephants live in families that are led by an old female. She remembers where
water can be found in a dry year. With the trunk, which has no bones, an
elephant can pick up a nut or lift a heavy log.

Vinegar is made when wine or cider stands open to the air. Small living things
turn the alcohol into acid. People have used it for thousands of years to keep
vegetables, to clean and to season their food.

The railway made towns grow. Goods that had needed a week on the road arrived in
a day, and workers could live far from the factory. Stations became great halls
of iron and glass, and all clocks along a line had to agree.

Fog is a cloud that touches the ground. It forms when moist air cools during a
clear night or drifts over cold water. Drivers slow down and ships sound their
horns until the Sun or the wind has dissolved it.
"""
