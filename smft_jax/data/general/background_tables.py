"""Tables for the background, on other facts than those that are held out."""

from __future__ import annotations

TABLES: dict[str, tuple[tuple[str, ...], str]] = {
  'state': (
    (
      'What is the capital of the state of {}?',
      'Which city is the capital of the state of {}?',
    ),
    """
    Alabama: Montgomery, Alaska: Juneau, Arizona: Phoenix, Arkansas: Little
    Rock, California: Sacramento, Colorado: Denver, Connecticut: Hartford,
    Delaware: Dover, Florida: Tallahassee, Georgia: Atlanta, Hawaii: Honolulu,
    Idaho: Boise, Illinois: Springfield, Indiana: Indianapolis, Iowa: Des
    Moines, Kansas: Topeka, Kentucky: Frankfort, Louisiana: Baton Rouge, Maine:
    Augusta, Maryland: Annapolis, Massachusetts: Boston, Michigan: Lansing,
    Minnesota: Saint Paul, Mississippi: Jackson, Missouri: Jefferson City,
    Montana: Helena, Nebraska: Lincoln, Nevada: Carson City, New Jersey:
    Trenton, New Mexico: Santa Fe, New York: Albany, Ohio: Columbus, Oklahoma:
    Oklahoma City, Oregon: Salem, Pennsylvania: Harrisburg, Rhode Island:
    Providence, Tennessee: Nashville, Texas: Austin, Utah: Salt Lake City,
    Vermont: Montpelier, Virginia: Richmond, Washington: Olympia, Wisconsin:
    Madison, Wyoming: Cheyenne
    """,
  ),
  'demonym': (
    ('What are people from {} called?', 'What do we call somebody from {}?'),
    """
    Spain: Spaniards|Spanish, Denmark: Danes|Danish, Turkey: Turks|Turkish,
    Poland: Poles|Polish, Sweden: Swedes|Swedish, Greece: Greeks|Greek, Iraq:
    Iraqis|Iraqi, Peru: Peruvians|Peruvian, Norway: Norwegians|Norwegian, Cuba:
    Cubans|Cuban, Chile: Chileans|Chilean, Kenya: Kenyans|Kenyan, Portugal:
    Portuguese, Switzerland: Swiss, the Netherlands: Dutch, Belgium:
    Belgians|Belgian, Wales: Welsh, Nepal: Nepalis|Nepali, Ghana:
    Ghanaians|Ghanaian, Iceland: Icelanders|Icelandic
    """,
  ),
  'nation': (
    ('From which country was {}?', 'What was the home country of {}?'),
    """
    Frederic Chopin: Poland, Sigmund Freud: Austria, Nelson Mandela: South
    Africa, Mahatma Gandhi: India, Simon Bolivar: Venezuela, Franz Liszt:
    Hungary, Edvard Grieg: Norway, Jean Sibelius: Finland, Hans Christian
    Andersen: Denmark, Carl Linnaeus: Sweden, Marco Polo: Italy, Vasco da Gama:
    Portugal, Joan of Arc: France, Napoleon: France, Ivan Pavlov: Russia, Diego
    Rivera: Mexico, Frida Kahlo: Mexico, Pablo Neruda: Chile, Ernest Rutherford:
    New Zealand, Confucius: China, Bob Marley: Jamaica, Pele: Brazil, Immanuel
    Kant: Germany, Rene Descartes: France, Antonio Gaudi: Spain, Erasmus: the
    Netherlands|Netherlands
    """,
  ),
  'water': (
    (
      'Through which country does the {} flow?',
      'In which country is the river {}?',
    ),
    """
    Loire: France, Tiber: Italy, Po: Italy, Volga: Russia, Ganges: India,
    Yangtze: China, Shannon: Ireland, Vistula: Poland, Murray: Australia,
    Mississippi: the United States|United States, Mackenzie: Canada, Ebro:
    Spain, Severn: England|the United Kingdom, Elbe: Germany, Tagus: Portugal,
    Lena: Russia, Waikato: New Zealand
    """,
  ),
  'sound': (
    ('What sound does a {} make?', 'Which noise comes from a {}?'),
    """
    dog: Bark|Woof, cat: Meow, cow: Moo, sheep: Baa|Bleat, pig: Oink, duck:
    Quack, lion: Roar, horse: Neigh, snake: Hiss, bee: Buzz, owl: Hoot, frog:
    Croak, rooster: Crow, wolf: Howl, mouse: Squeak, donkey: Bray
    """,
  ),
  'class': (
    (
      'What kind of animal is a {}?',
      'To which class of animals does a {} belong?',
    ),
    """
    salmon: Fish, eagle: Bird, frog: Amphibian, lizard: Reptile, dolphin:
    Mammal, ant: Insect, shark: Fish, parrot: Bird, crocodile: Reptile, bat:
    Mammal, beetle: Insect, turtle: Reptile, newt: Amphibian, trout: Fish,
    sparrow: Bird, mosquito: Insect, camel: Mammal, cobra: Reptile, otter:
    Mammal, pigeon: Bird
    """,
  ),
  'trade': (
    ('Who {}?', 'What is the trade of somebody who {}?'),
    """
    bakes bread: A baker|Baker, repairs shoes: A cobbler|Cobbler|Shoemaker,
    flies an aircraft: A pilot|Pilot, teaches children: A teacher|Teacher, sells
    meat: A butcher|Butcher, cuts hair: A hairdresser|Hairdresser|Barber,
    catches fish: A fisherman|Fisherman, grows crops: A farmer|Farmer, treats
    teeth: A dentist|Dentist, designs houses: An architect|Architect, puts out
    fires: A firefighter|Firefighter, sews suits: A tailor|Tailor, makes pots of
    clay: A potter|Potter, sells flowers: A florist|Florist, looks after sick
    animals: A vet|Vet|Veterinarian, works in wood: A carpenter|Carpenter,
    defends people in court: A lawyer|Lawyer, sails on ships: A sailor|Sailor
    """,
  ),
  'use': (
    ('What do we use {} for?', 'What is the purpose of {}?'),
    """
    a thermometer: Measuring temperature, a scale: Weighing, scissors: Cutting,
    a needle: Sewing, a kettle: Boiling water, an umbrella: Keeping off
    rain|Rain, a broom: Sweeping, a telescope: Looking at stars, a hammer:
    Driving nails, a lamp: Light, a towel: Drying, a pen: Writing, a key:
    Opening a lock|Opening locks, a ruler: Measuring length, a ladder: Climbing,
    a clock: Telling time|Telling the time
    """,
  ),
  'after': (
    ('What comes after {}?', 'Which one follows {}?'),
    """
    Monday: Tuesday, Thursday: Friday, Saturday: Sunday, January: February,
    March: April, June: July, September: October, November: December, spring:
    Summer, autumn: Winter, the number nine: Ten|10, the number nineteen:
    Twenty|20, the letter A: B, the letter G: H, the letter P: Q, breakfast:
    Lunch, childhood: Youth|Adulthood, the number ninety-nine: One hundred|100
    """,
  ),
  'part': (
    ('What does a {} have?', 'What is part of a {}?'),
    """
    bird: Feathers|Wings, fish: Fins|Gills, tree: Leaves|Branches, car: Wheels,
    book: Pages, house: Rooms|Walls, rose: Thorns|Petals, hand: Fingers, shoe:
    Laces|A sole, guitar: Strings, castle: Towers, elephant: A trunk|Trunk,
    snail: A shell|Shell, piano: Keys, bicycle: Wheels|Pedals, hedgehog: Spines
    """,
  ),
}
