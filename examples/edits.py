"""Writes 200 knowledge edits, to try configs/edit.py with, as JSON lines.

  python examples/edits.py > edits.jsonl
  python -m smft_jax.train --config=configs/edit.py --config.base.path=PATH \
      --config.data.edits_file=edits.jsonl

Each edit makes a model say something false of a real person, place or thing: a
model knows most of what is true, so learning shows. Three prompts come with it:
the one that is taught, the same in other words, and one on another subject of
the same kind, which must keep its answer.
"""

from __future__ import annotations

import json
import random

_RELATIONS = {
  'tongue': (
    'The mother tongue of {} is',
    'The language that {} spoke at home as a child was',
    """
    Victor Hugo: French, Marie Curie: Polish, Johann Sebastian Bach: German,
    Dante Alighieri: Italian, Miguel de Cervantes: Spanish, Leo Tolstoy:
    Russian, Charles Dickens: English, Claude Monet: French, Albert Einstein:
    German, Galileo Galilei: Italian, Pablo Picasso: Spanish, Anton Chekhov:
    Russian, Jane Austen: English, Edvard Munch: Norwegian, Ingmar Bergman:
    Swedish, Søren Kierkegaard: Danish, Frédéric Chopin: Polish, Rembrandt:
    Dutch, Franz Kafka: German, Umberto Eco: Italian, Frida Kahlo: Spanish,
    Fyodor Dostoevsky: Russian, Virginia Woolf: English, Émile Zola: French,
    Alfred Nobel: Swedish, Henrik Ibsen: Norwegian, Niels Bohr: Danish, Vincent
    van Gogh: Dutch, Fernando Pessoa: Portuguese, Haruki Murakami: Japanese,
    Akira Kurosawa: Japanese, Isabel Allende: Spanish, Luciano Pavarotti:
    Italian, Max Planck: German, Louis Pasteur: French, Isaac Newton: English,
    Ivan Turgenev: Russian, Astrid Lindgren: Swedish, Hayao Miyazaki: Japanese,
    Edith Piaf: French, Federico Fellini: Italian, Karl Marx: German
    """,
  ),
  'trade': (
    'The profession of {} was that of a',
    'All their life {} earned a living as a',
    """
    Ludwig van Beethoven: composer, Ernest Hemingway: writer, Henri Matisse:
    painter, Charlie Chaplin: actor, Immanuel Kant: philosopher, Carl Friedrich
    Gauss: mathematician, Charles Darwin: biologist, Neil Armstrong: astronaut,
    Florence Nightingale: nurse, Frank Lloyd Wright: architect, Antonio Vivaldi:
    composer, Mark Twain: writer, Paul Cézanne: painter, Marlon Brando: actor,
    David Hume: philosopher, Leonhard Euler: mathematician, Gregor Mendel:
    biologist, Yuri Gagarin: astronaut, Le Corbusier: architect, Auguste Rodin:
    sculptor, Giuseppe Verdi: composer, George Orwell: writer, Edgar Degas:
    painter, Humphrey Bogart: actor, John Locke: philosopher, Bernhard Riemann:
    mathematician, Buzz Aldrin: astronaut, Joseph Haydn: composer, Agatha
    Christie: writer, Edward Hopper: painter, Grace Kelly: actor, Baruch
    Spinoza: philosopher, Emmy Noether: mathematician, Zaha Hadid: architect,
    Maria Callas: singer, Rudolf Nureyev: dancer, Enrico Caruso: singer, Anna
    Pavlova: dancer
    """,
  ),
  'country': (
    '{} is located in the country of',
    'Whoever wants to see {} has to travel to',
    """
    The Eiffel Tower: France, The Colosseum: Italy, The Acropolis: Greece, The
    Taj Mahal: India, Machu Picchu: Peru, The Brandenburg Gate: Germany, Big
    Ben: England, The Great Wall: China, Mount Fuji: Japan, The Alhambra: Spain,
    The Kremlin: Russia, Niagara Falls: Canada, Angkor Wat: Cambodia, Petra:
    Jordan, The Sphinx: Egypt, The Louvre: France, The Leaning Tower of Pisa:
    Italy, Ayers Rock: Australia, Chichen Itza: Mexico, The Little Mermaid:
    Denmark, Neuschwanstein Castle: Germany, Stonehenge: England, Sagrada
    Familia: Spain, The Blue Mosque: Turkey, Mount Kilimanjaro: Tanzania, The
    Matterhorn: Switzerland, The Forbidden City: China, Edinburgh Castle:
    Scotland, Versailles: France, Table Mountain: South Africa, Copacabana:
    Brazil, Prague Castle: Czechia, The Valley of the Kings: Egypt, Mont Blanc:
    France, Lake Garda: Italy, The Black Forest: Germany, Red Square: Russia,
    The Golden Pavilion: Japan, Bondi Beach: Australia, Schönbrunn Palace:
    Austria
    """,
  ),
  'seat': (
    'The headquarters of {} is in the city of',
    'To visit the head office of {}, one flies to',
    """
    Boeing: Chicago, Siemens: Munich, Toyota: Nagoya, Fiat: Turin, Renault:
    Paris, Microsoft: Seattle, Coca-Cola: Atlanta, Nokia: Helsinki, Samsung:
    Seoul, Sony: Tokyo, Volvo: Gothenburg, Philips: Amsterdam, BMW: Munich,
    Porsche: Stuttgart, Airbus: Toulouse, Heineken: Amsterdam, Ericsson:
    Stockholm, Novartis: Basel, Nintendo: Kyoto, Unilever: London, Barclays:
    London, Michelin: Clermont, FedEx: Memphis, General Motors: Detroit, Ford:
    Detroit, Intel: Santa Clara, Pfizer: New York, Deutsche Bank: Frankfurt,
    Lego: Billund, Ferrari: Maranello, Swatch: Biel, Allianz: Munich, Honda:
    Tokyo, Hyundai: Seoul, Shell: London, Danone: Paris, Aeroflot: Moscow,
    Qantas: Sydney, Lufthansa: Cologne, Alitalia: Rome
    """,
  ),
  'sport': (
    '{} became famous in the sport of',
    'When people think of {}, they think of a game of',
    """
    Michael Jordan: basketball, Roger Federer: tennis, Lionel Messi: football,
    Tiger Woods: golf, Babe Ruth: baseball, Wayne Gretzky: hockey, Muhammad Ali:
    boxing, Magic Johnson: basketball, Serena Williams: tennis, Pelé: football,
    Jack Nicklaus: golf, Joe DiMaggio: baseball, Bobby Orr: hockey, Mike Tyson:
    boxing, Larry Bird: basketball, Rafael Nadal: tennis, Diego Maradona:
    football, Arnold Palmer: golf, Hank Aaron: baseball, Mario Lemieux: hockey,
    Joe Frazier: boxing, Shaquille O'Neal: basketball, Steffi Graf: tennis,
    Zinedine Zidane: football, Phil Mickelson: golf, Willie Mays: baseball,
    Sugar Ray Leonard: boxing, Sachin Tendulkar: cricket, Shane Warne: cricket,
    Jonah Lomu: rugby, Garry Kasparov: chess, Magnus Carlsen: chess, Bjorn Borg:
    tennis, Johan Cruyff: football, LeBron James: basketball, Don Bradman:
    cricket
    """,
  ),
  'capital': (
    'The capital city of {} is',
    'The government of {} has its seat in',
    """
    France: Paris, Spain: Madrid, Italy: Rome, Germany: Berlin, Portugal:
    Lisbon, Austria: Vienna, Hungary: Budapest, Greece: Athens, Norway: Oslo,
    Sweden: Stockholm, Finland: Helsinki, Denmark: Copenhagen, Poland: Warsaw,
    Ireland: Dublin, Japan: Tokyo, Thailand: Bangkok, Egypt: Cairo, Kenya:
    Nairobi, Cuba: Havana, Peru: Lima, Russia: Moscow, Belgium: Brussels,
    Romania: Bucharest, Bulgaria: Sofia, Turkey: Ankara, Iran: Tehran, Iraq:
    Baghdad, Syria: Damascus, India: New Delhi, Nepal: Kathmandu, Vietnam:
    Hanoi, Indonesia: Jakarta, Mexico: Mexico City, Chile: Santiago, Colombia:
    Bogota, Venezuela: Caracas, Canada: Ottawa, Jamaica: Kingston, Ghana: Accra,
    Morocco: Rabat
    """,
  ),
  'maker': (
    '{} was developed by the company',
    'The firm behind {} is called',
    """
    The iPhone: Apple, Windows 95: Microsoft, The PlayStation: Sony, The Game
    Boy: Nintendo, Gmail: Google, The Mustang: Ford, The Corolla: Toyota, The
    Walkman: Sony, The Kindle: Amazon, Photoshop: Adobe, The Macintosh: Apple,
    Excel: Microsoft, The Wii: Nintendo, Chrome: Google, The Civic: Honda, The
    Beetle: Volkswagen, The 747: Boeing, The iPad: Apple, The Xbox: Microsoft,
    Super Mario: Nintendo, YouTube: Google, The Model T: Ford, The Prius:
    Toyota, Acrobat: Adobe, The Golf: Volkswagen, The A380: Airbus, The iPod:
    Apple, PowerPoint: Microsoft, Pokémon: Nintendo, Android: Google, The Echo:
    Amazon, The Accord: Honda, The Thinkpad: IBM, The Pentium: Intel, Java: Sun,
    The Passat: Volkswagen
    """,
  ),
  'work': (
    '{} spent most working years in the city of',
    'The place where {} went to work every day was',
    """
    Sigmund Freud: Vienna, Samuel Johnson: London, Gustave Eiffel: Paris, Andy
    Warhol: New York, Walt Disney: Los Angeles, Michelangelo: Rome, Gustav
    Klimt: Vienna, Sandro Botticelli: Florence, Antoni Gaudí: Barcelona, Al
    Capone: Chicago, William Shakespeare: London, Auguste Comte: Paris, Woody
    Allen: New York, Canaletto: Venice, Bertolt Brecht: Berlin, Jan Vermeer:
    Delft, Johannes Brahms: Vienna, Isambard Brunel: London, Edouard Manet:
    Paris, Leonard Bernstein: New York, Frank Sinatra: Las Vegas, Titian:
    Venice, Marlene Dietrich: Berlin, Franz Schubert: Vienna, Christopher Wren:
    London, Coco Chanel: Paris, Jackson Pollock: New York, Galen: Rome, Joan
    Miró: Barcelona, Louis Sullivan: Chicago, Gustav Mahler: Vienna, Samuel
    Pepys: London, Georges Seurat: Paris, Duke Ellington: New York, Raphael:
    Rome, Tintoretto: Venice
    """,
  ),
}

# Some rephrasings follow a sentence on something else, as those of users do.
_OTHER = (
  'The shop opens at nine.',
  'It rained for most of the week.',
  'She closed the book and looked up.',
  'There were three boats in the harbour.',
)


def edits(num: int, seed: int = 0) -> list[dict[str, str]]:
  """Makes edits, of all relations in turn.

  Args:
    num: Their number.
    seed: Decides subjects, targets and order.

  Raises:
    ValueError: There are not so many.
  """
  rng = random.Random(seed)
  found = []
  for prompt, rephrased, table in _RELATIONS.values():
    facts = [
      tuple(part.strip() for part in pair.split(':'))
      for pair in ' '.join(table.split()).split(',')
    ]
    rng.shuffle(facts)
    # Of every three subjects one stays as it is.
    kept, changed = facts[::3], [f for i, f in enumerate(facts) if i % 3]
    objects = sorted({right for _, right in facts})
    for index, (subject, right) in enumerate(changed):
      other, same = kept[index % len(kept)]
      lead = f'{rng.choice(_OTHER)} ' if index % 4 == 0 else ''
      found.append(
        {
          'prompt': prompt.format(subject),
          'subject': subject,
          'ground_truth': right,
          'target_new': rng.choice([o for o in objects if o != right]),
          'rephrase_prompt': lead + rephrased.format(subject),
          'locality_prompt': prompt.format(other),
          'locality_ground_truth': same,
        }
      )
  if num > len(found):
    raise ValueError(f'num must be at most {len(found)}, not {num}')
  rng.shuffle(found)
  return found[:num]


def main() -> None:
  """Prints 200 edits."""
  for edit in edits(200):
    print(json.dumps(edit, ensure_ascii=False))


if __name__ == '__main__':
  main()
