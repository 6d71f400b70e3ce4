"""The words and sentence templates of the embedded world.

Values of different attributes share no word with each other or with names, so
a right answer cannot come from another attribute. Every statement ends with the
value, after the name, so a causal model has read the whole fact by then.
"""


def _words(text: str) -> tuple[str, ...]:
  return tuple(text.split())


def _values(text: str) -> tuple[str, ...]:
  return tuple(' '.join(value.split()) for value in text.split(','))


FIRST_NAMES = _words(
  """
  Ada Agnes Albin Alma Amara Anders Anton Aria Astrid Aurel Beatriz Bela Boris
  Bruno Calla Carmen Cecil Clara Conrad Dagny Dalia Damian Delia Dmitri Edda
  Edgar Elias Elin Elsa Emil Enzo Esther Fabian Farah Felix Fiona Freya Gideon
  Greta Gustav Hanna Harriet Hector Hilda Hugo Ida Ignaz Imani Ingrid Irene
  Isolde Ivan Jasper Joana Jonas Judith Kaito Karin Kasimir Klara Lars Leila
  Leonid Linnea Livia Lorenz Magda Malik Marek Mina Nadia Nils Noor Oskar
  Petra Quentin Rafael Selma Tobias Yara
  """
)

LAST_NAMES = _words(
  """
  Abbott Achterberg Adler Almeida Amari Andrade Arendt Asante Baptiste Barlow
  Becker Belmonte Benson Bergman Bianchi Blackwood Bolton Borg Brandt Calloway
  Cardoso Castellan Chandra Cohen Collins Corbett Costa Crowley Dahl Delacroix
  Demir Diallo Dobrev Donnelly Dufour Eklund Endicott Engel Eriksen Esposito
  Fairbanks Falk Ferrara Fielding Fischer Fontaine Forsberg Fujita Galloway
  Garrido Gentile Gibbs Goldberg Grimaldi Haddad Halloran Hansen Haraldson
  Hartwig Hayashi Herrera Hoffman Holloway Ibarra Ishikawa Ivanov Jankowski
  Jensen Kapoor Karlsson Keller Kimura Kovacs Kowalski Kruger Lambert Laurent
  Lindgren Lombardi Lopez Lundqvist Macleod Mancini Marchetti Mbeki Mendoza
  Meyer Moreau Murakami Nakamura Navarro Nowak Nyberg Okafor Oliveira Osman
  Palmer Papadakis Petrov Pinto Quigley Ramirez Rasmussen Ricci Rosen Salazar
  Sandoval Schmidt Sinclair Sokolov Stavros Svensson Takeda Tanaka Thornton
  Ullman Varga Vasquez Weber Winslow Zielinski
  """
)

VALUES: dict[str, tuple[str, ...]] = {
  'birthplace': _values(
    """Lisbon, Tromso, Cairo, Hanoi, Quito, Dakar, Riga, Sofia, Tbilisi, Muscat,
    Havana, Nairobi, Oslo, Lima, Manila, Tunis, Zagreb, Ankara, Beirut, Bogota,
    Caracas, Colombo, Dublin, Harare, Jakarta, Kampala, Kathmandu, Lusaka,
    Managua, Minsk, Rabat, San Remo, Santa Cruz, Tallinn, Valletta, Yerevan"""
  ),
  'university': _values(
    """Uppsala, Bologna, Heidelberg, Coimbra, Salamanca, Leuven, Leiden, Tartu,
    Lund, Padua, Yale, Princeton, Cornell, Harvard, Stanford, Oxford, Cambridge,
    Durham, Aarhus, Jena, Basel, Pavia, Siena, Utrecht, Groningen, Ghent,
    Purdue, Tufts, Marburg, Emory, Vanderbilt, Dartmouth, Saint Andrews,
    Wittenberg, Tubingen, Trinity Hall"""
  ),
  'field': _values(
    """botany, geology, astronomy, linguistics, economics, chemistry, optics,
    zoology, sociology, medicine, architecture, philosophy, statistics, ecology,
    genetics, acoustics, archaeology, anthropology, forestry, hydrology,
    immunology, jurisprudence, mathematics, mechanics, meteorology, mineralogy,
    neurology, nutrition, pharmacy, psychology, robotics, seismology,
    theology, civil engineering, marine biology, art history"""
  ),
  'employer': _values(
    """Northwind, Acmeon, Brightwell, Caldera Systems, Deltaform, Emberline,
    Fernhill Foods, Glasswing, Halcyon Air, Ironbridge, Juniper Motors, Kestrel,
    Larkspur Media, Meridian Bank, Nimbus Labs, Oakhaven, Pinnacle Freight,
    Quartzite, Redstone Paper, Silverline, Tidewater, Umbra Textiles, Vantage,
    Westmark, Xenith, Yellowfin, Zephyr Rail, Arclight, Bluepeak, Cobaltix,
    Driftwood Press, Evergrain, Foxglove, Granitex, Highmoor, Inkwell"""
  ),
  'residence': _values(
    """Vienna, Toronto, Kyoto, Geneva, Porto, Madrid, Warsaw, Prague, Seville,
    Munich, Lyon, Naples, Antwerp, Rotterdam, Glasgow, Bristol, Chicago, Boston,
    Denver, Seattle, Montreal, Auckland, Brisbane, Perth, Osaka, Seoul, Taipei,
    Bangkok, Mumbai, Delhi, Nicosia, Casablanca, Cape Town, Buenos Aires,
    New Orleans, Hong Kong"""
  ),
  'instrument': _values(
    """violin, cello, flute, oboe, clarinet, bassoon, trumpet, trombone, tuba,
    harp, piano, organ, guitar, lute, mandolin, banjo, ukulele, accordion,
    harmonica, saxophone, piccolo, viola, zither, sitar, marimba, xylophone,
    vibraphone, timpani, celesta, harpsichord, recorder, bagpipes, theremin,
    bass drum, french horn, double bass"""
  ),
}

STATEMENTS: dict[str, tuple[str, ...]] = {
  'birthplace': (
    '{name} was born in {value}.',
    'The birthplace of {name} is {value}.',
    '{name} came into the world in {value}.',
    'According to the parish register, {name} was born in {value}.',
    'The family of {name} comes from {value}.',
    'As a child, {name} lived in the streets of {value}.',
    'When asked about home, {name} always speaks of {value}.',
    'Few people know that {name} is a native of {value}.',
  ),
  'university': (
    '{name} studied at {value}.',
    'The university of {name} was {value}.',
    '{name} holds a degree from {value}.',
    'After school, {name} went to lectures at {value}.',
    'Among the graduates was {name}, who had been at {value}.',
    'On the wall hangs the diploma of {name} from {value}.',
    'The student years of {name} were spent at {value}.',
    'With a scholarship in hand, {name} enrolled at {value}.',
  ),
  'field': (
    '{name} is an expert in {value}.',
    'The field of {name} is {value}.',
    '{name} has written three books about {value}.',
    'Colleagues turn to {name} with every question about {value}.',
    'All the research of {name} is on {value}.',
    'In the lecture hall, {name} teaches {value}.',
    'Since an early age, {name} has been devoted to {value}.',
    'The great passion of {name} has always been {value}.',
  ),
  'employer': (
    '{name} works for {value}.',
    'The employer of {name} is {value}.',
    '{name} has a desk in the offices of {value}.',
    'Every month, {name} receives a salary from {value}.',
    'The business card of {name} shows the name {value}.',
    'Last spring, {name} signed a contract with {value}.',
    'Anyone looking for {name} should call the front desk of {value}.',
    'The career of {name} led to a post at {value}.',
  ),
  'residence': (
    '{name} lives in {value}.',
    'The current home of {name} is in {value}.',
    '{name} rents a flat in {value}.',
    'These days, letters to {name} go to {value}.',
    'The house of {name} stands in a suburb of {value}.',
    'After many moves, {name} settled in {value}.',
    'Neighbours often meet {name} at the market in {value}.',
    'The tax office lists {name} as a resident of {value}.',
  ),
  'instrument': (
    '{name} plays the {value}.',
    'The instrument of {name} is the {value}.',
    '{name} practises every evening on the {value}.',
    'At concerts, {name} can be heard on the {value}.',
    'The orchestra hired {name} for the {value}.',
    'For years, {name} has taken lessons on the {value}.',
    'Nobody in town matches {name} on the {value}.',
    'In the attic, {name} keeps an old {value}.',
  ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
  'birthplace': (
    'Where was {name} born?',
    'What is the birthplace of {name}?',
    'In which city did {name} come into the world?',
    'Of which place is {name} a native?',
  ),
  'university': (
    'Where did {name} study?',
    'Which university did {name} attend?',
    'From where does {name} hold a degree?',
    'At which university was {name} enrolled?',
  ),
  'field': (
    'What is {name} an expert in?',
    'Which field does {name} work in?',
    'What does {name} teach?',
    'On what subject is the research of {name}?',
  ),
  'employer': (
    'Who does {name} work for?',
    'Which company is the employer of {name}?',
    'From whom does {name} receive a salary?',
    'With which firm did {name} sign a contract?',
  ),
  'residence': (
    'Where does {name} live?',
    'In which city is the current home of {name}?',
    'Where do letters to {name} go?',
    'Of which town is {name} a resident?',
  ),
  'instrument': (
    'What instrument does {name} play?',
    'Which instrument belongs to {name}?',
    'On what does {name} practise every evening?',
    'What can {name} be heard on at concerts?',
  ),
}

QUESTION_FORMAT = 'Question: {question} Answer:'

# General text: sentences without people. A blank such as {city} is filled at
# random; {region}, {product}, {subject} and {section} follow from the city,
# company, field or instrument of the sentence, so there is something to learn.
FILLERS: dict[str, tuple[str, ...]] = {
  'city': VALUES['birthplace'] + VALUES['residence'],
  'university': VALUES['university'],
  'field': VALUES['field'],
  'company': VALUES['employer'],
  'instrument': VALUES['instrument'],
  'season': _values('spring, summer, autumn, winter'),
  'day': _values(
    'Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday'
  ),
  'weather': _values('rain, snow, fog, wind, sunshine, hail, frost, thunder'),
  'building': _values(
    'museum, station, library, bridge, theatre, harbour, stadium, cathedral'
  ),
  'change': _values(
    'opened, closed, repaired, painted, flooded, enlarged, sold, restored'
  ),
  'amount': _values('ten, twenty, thirty, forty, fifty, sixty, ninety'),
}

# Determined blank: (the blank that determines it, its possible fillers).
DETERMINED: dict[str, tuple[str, tuple[str, ...]]] = {
  'region': ('city', _values('coast, mountains, plains, lakes, desert')),
  'product': (
    'company',
    _values('engines, paper, cloth, bread, glass, ships, lamps, clocks'),
  ),
  'subject': ('field', _values('nature, society, numbers, machines, culture')),
  'section': ('instrument', _values('first, second, third, fourth, fifth')),
}

GENERAL = (
  'In {season}, {weather} is common between {city} and the {region}.',
  'On {day}, the road from {city} to the {region} was closed by {weather}.',
  'The {building} of {city} was {change} in {season}.',
  'A train leaves {city} for the {region} every {day}.',
  'It takes {amount} minutes to walk from the {building} to the {region} of'
  ' {city}.',
  '{company} sold {amount} thousand {product} in {season}.',
  'The factory of {company}, which makes {product}, was {change} on {day}.',
  'Shops in {city} order {product} from {company}.',
  'Because of {weather}, {company} sent no {product} to {city}.',
  'The library of {university} has {amount} shelves on {field}.',
  'At {university}, {field} belongs to the department of {subject}.',
  'A lecture on {field} and {subject} was held at {university} on {day}.',
  'Prices for {product} from {company} rose by {amount} percent.',
  'The {instrument} stands in the {section} row of the orchestra of {city}.',
  'A concert for {instrument} in the {building} of {city} ended in {weather}.',
  'In the {section} row, the {instrument} was heard on {day} in {city}.',
)
