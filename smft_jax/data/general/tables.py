"""Tables of facts about the real world, each with the ways to ask for them.

A table is a few questions with a blank, and pairs 'subject: answer', separated
by commas. Further accepted answers follow a stroke: 'Peru: Sol|Peruvian sol'.
"""

from __future__ import annotations

TABLES: dict[str, tuple[tuple[str, ...], str]] = {
  'capital': (
    ('What is the capital of {}?', 'Which city is the capital of {}?'),
    """
    Afghanistan: Kabul, Albania: Tirana, Algeria: Algiers, Angola: Luanda,
    Argentina: Buenos Aires, Armenia: Yerevan, Australia: Canberra, Austria:
    Vienna, Azerbaijan: Baku, Bangladesh: Dhaka, Belarus: Minsk, Belgium:
    Brussels, Bulgaria: Sofia, Cambodia: Phnom Penh, Cameroon: Yaounde, Canada:
    Ottawa, Chad: N'Djamena, Chile: Santiago, China: Beijing, Colombia: Bogota,
    Croatia: Zagreb, Cuba: Havana, Cyprus: Nicosia, the Czech Republic: Prague,
    Denmark: Copenhagen, Ecuador: Quito, Egypt: Cairo, Eritrea: Asmara, Estonia:
    Tallinn, Ethiopia: Addis Ababa, Fiji: Suva, Finland: Helsinki, France:
    Paris, Georgia: Tbilisi, Germany: Berlin, Ghana: Accra, Greece: Athens,
    Guatemala: Guatemala City, Haiti: Port-au-Prince, Hungary: Budapest,
    Iceland: Reykjavik, India: New Delhi, Indonesia: Jakarta, Iran: Tehran,
    Iraq: Baghdad, Ireland: Dublin, Italy: Rome, Jamaica: Kingston, Japan:
    Tokyo, Jordan: Amman, Kenya: Nairobi, Laos: Vientiane, Latvia: Riga,
    Lebanon: Beirut, Libya: Tripoli, Lithuania: Vilnius, Madagascar:
    Antananarivo, Malaysia: Kuala Lumpur, Mali: Bamako, Malta: Valletta, Mexico:
    Mexico City, Moldova: Chisinau, Mongolia: Ulaanbaatar, Morocco: Rabat,
    Mozambique: Maputo, Namibia: Windhoek, Nepal: Kathmandu, the Netherlands:
    Amsterdam, New Zealand: Wellington, Nicaragua: Managua, Niger: Niamey,
    Nigeria: Abuja, North Korea: Pyongyang, Norway: Oslo, Oman: Muscat,
    Pakistan: Islamabad, Paraguay: Asuncion, Peru: Lima, the Philippines:
    Manila, Poland: Warsaw, Portugal: Lisbon, Qatar: Doha, Romania: Bucharest,
    Russia: Moscow, Rwanda: Kigali, Saudi Arabia: Riyadh, Senegal: Dakar,
    Serbia: Belgrade, Slovakia: Bratislava, Slovenia: Ljubljana, Somalia:
    Mogadishu, South Korea: Seoul, Spain: Madrid, Sudan: Khartoum, Sweden:
    Stockholm, Syria: Damascus, Taiwan: Taipei, Thailand: Bangkok, Tunisia:
    Tunis, Turkey: Ankara, Uganda: Kampala, Ukraine: Kyiv|Kiev, the United
    Kingdom: London, the United States: Washington|Washington D.C., Uruguay:
    Montevideo, Venezuela: Caracas, Vietnam: Hanoi, Zambia: Lusaka, Zimbabwe:
    Harare
    """,
  ),
  'currency': (
    ('What is the currency of {}?', 'With which money do people pay in {}?'),
    """
    Japan: Yen|Japanese yen, India: Rupee|Indian rupee, China: Yuan|Renminbi,
    Mexico: Peso|Mexican peso, Russia: Ruble|Russian ruble, Switzerland:
    Franc|Swiss franc, Sweden: Krona|Swedish krona, Norway: Krone|Norwegian
    krone, Poland: Zloty|Polish zloty, Hungary: Forint, Thailand: Baht, Vietnam:
    Dong, South Korea: Won|South Korean won, Israel: Shekel, Turkey:
    Lira|Turkish lira, Brazil: Real|Brazilian real, South Africa: Rand, Egypt:
    Pound|Egyptian pound, Nigeria: Naira, Kenya: Shilling|Kenyan shilling,
    Ghana: Cedi, Ethiopia: Birr, Ukraine: Hryvnia, Romania: Leu, Bulgaria: Lev,
    Malaysia: Ringgit, Indonesia: Rupiah, Bangladesh: Taka, Peru: Sol, Saudi
    Arabia: Riyal, Kuwait: Dinar, Germany: Euro, Canada: Dollar|Canadian dollar,
    the United Kingdom: Pound|Pound sterling, Iran: Rial, Mongolia: Tugrik,
    Zambia: Kwacha, Albania: Lek, Georgia: Lari, Morocco: Dirham
    """,
  ),
  'language': (
    ('What language is spoken in {}?', 'Which language do people in {} speak?'),
    """
    Brazil: Portuguese, Mexico: Spanish, Austria: German, Egypt: Arabic, Iran:
    Persian|Farsi, Japan: Japanese, Greece: Greek, Israel: Hebrew, Poland:
    Polish, Hungary: Hungarian, Finland: Finnish, Denmark: Danish, Iceland:
    Icelandic, Thailand: Thai, Vietnam: Vietnamese, Turkey: Turkish, Ukraine:
    Ukrainian, Bulgaria: Bulgarian, Romania: Romanian, Albania: Albanian,
    Armenia: Armenian, Georgia: Georgian, Mongolia: Mongolian, Nepal: Nepali,
    Bangladesh: Bengali, Cuba: Spanish, Chile: Spanish, Australia: English,
    Angola: Portuguese, Senegal: French, Laos: Lao, Cambodia: Khmer, Estonia:
    Estonian, Latvia: Latvian, Lithuania: Lithuanian
    """,
  ),
  'continent': (
    ('On which continent is {}?', 'What continent does {} belong to?'),
    """
    Egypt: Africa, Japan: Asia, France: Europe, Brazil: South America, Canada:
    North America, Kenya: Africa, India: Asia, Poland: Europe, Peru: South
    America, Nigeria: Africa, Vietnam: Asia, Portugal: Europe, Chile: South
    America, Ghana: Africa, Nepal: Asia, Sweden: Europe, Uruguay: South America,
    Zambia: Africa, Mongolia: Asia, Ireland: Europe, Bolivia: South America,
    Mali: Africa, Thailand: Asia, Hungary: Europe, Ecuador: South America,
    Angola: Africa, Cambodia: Asia, Bulgaria: Europe, Ethiopia: Africa,
    Pakistan: Asia, Norway: Europe, Paraguay: South America, Senegal: Africa,
    Laos: Asia, Romania: Europe, Botswana: Africa
    """,
  ),
  'symbol': (
    (
      'What is the chemical symbol of {}?',
      'Which letters stand for {} in chemistry?',
    ),
    """
    hydrogen: H, helium: He, lithium: Li, carbon: C, nitrogen: N, oxygen: O,
    fluorine: F, neon: Ne, sodium: Na, magnesium: Mg, aluminium: Al, silicon:
    Si, phosphorus: P, sulfur: S, chlorine: Cl, argon: Ar, potassium: K,
    calcium: Ca, titanium: Ti, chromium: Cr, manganese: Mn, iron: Fe, cobalt:
    Co, nickel: Ni, copper: Cu, zinc: Zn, arsenic: As, bromine: Br, krypton: Kr,
    silver: Ag, tin: Sn, iodine: I, xenon: Xe, barium: Ba, tungsten: W,
    platinum: Pt, gold: Au, mercury: Hg, lead: Pb, radon: Rn, radium: Ra,
    uranium: U, plutonium: Pu, boron: B, beryllium: Be
    """,
  ),
  'author': (
    ('Who wrote {}?', 'Who is the author of {}?'),
    """
    Hamlet: William Shakespeare|Shakespeare, Don Quixote: Miguel de
    Cervantes|Cervantes, War and Peace: Leo Tolstoy|Tolstoy, Anna Karenina: Leo
    Tolstoy|Tolstoy, Crime and Punishment: Fyodor Dostoevsky|Dostoevsky, Pride
    and Prejudice: Jane Austen, Emma: Jane Austen, Great Expectations: Charles
    Dickens, Oliver Twist: Charles Dickens, Jane Eyre: Charlotte Bronte,
    Wuthering Heights: Emily Bronte, Moby-Dick: Herman Melville, The Great
    Gatsby: F. Scott Fitzgerald, Ulysses: James Joyce, The Trial: Franz Kafka,
    The Metamorphosis: Franz Kafka, Animal Farm: George Orwell, Brave New World:
    Aldous Huxley, Lord of the Flies: William Golding, The Hobbit: J. R. R.
    Tolkien, Dracula: Bram Stoker, Frankenstein: Mary Shelley, The Odyssey:
    Homer, The Iliad: Homer, The Aeneid: Virgil, The Divine Comedy: Dante|Dante
    Alighieri, The Decameron: Giovanni Boccaccio|Boccaccio, Faust: Johann
    Wolfgang von Goethe|Goethe, Les Miserables: Victor Hugo, Madame Bovary:
    Gustave Flaubert, Candide: Voltaire, The Three Musketeers: Alexandre Dumas,
    Around the World in Eighty Days: Jules Verne, The Time Machine: H. G. Wells,
    The War of the Worlds: H. G. Wells, Treasure Island: Robert Louis Stevenson,
    The Jungle Book: Rudyard Kipling, Peter Pan: J. M. Barrie, Alice in
    Wonderland: Lewis Carroll, Gulliver's Travels: Jonathan Swift, Robinson
    Crusoe: Daniel Defoe, Paradise Lost: John Milton, The Canterbury Tales:
    Geoffrey Chaucer, The Adventures of Tom Sawyer: Mark Twain, The Call of the
    Wild: Jack London, The Old Man and the Sea: Ernest Hemingway, A Farewell to
    Arms: Ernest Hemingway, The Grapes of Wrath: John Steinbeck, To Kill a
    Mockingbird: Harper Lee, The Catcher in the Rye: J. D. Salinger, The Picture
    of Dorian Gray: Oscar Wilde, A Doll's House: Henrik Ibsen, The Cherry
    Orchard: Anton Chekhov, The Little Prince: Antoine de Saint-Exupery, The
    Stranger: Albert Camus, The Name of the Rose: Umberto Eco, One Hundred Years
    of Solitude: Gabriel Garcia Marquez, The Origin of Species: Charles Darwin,
    The Republic: Plato, Macbeth: William Shakespeare|Shakespeare
    """,
  ),
  'painter': (
    ('Who painted {}?', 'Which artist made the painting {}?'),
    """
    the Mona Lisa: Leonardo da Vinci, The Starry Night: Vincent van Gogh,
    Guernica: Pablo Picasso, The Scream: Edvard Munch, The Night Watch:
    Rembrandt, Girl with a Pearl Earring: Johannes Vermeer, The Birth of Venus:
    Sandro Botticelli, The Persistence of Memory: Salvador Dali, Las Meninas:
    Diego Velazquez, The Kiss: Gustav Klimt, The Last Supper: Leonardo da Vinci,
    American Gothic: Grant Wood, The School of Athens: Raphael
    """,
  ),
  'composer': (
    ('Who composed {}?', 'Which composer wrote {}?'),
    """
    The Four Seasons: Antonio Vivaldi|Vivaldi, The Magic Flute: Wolfgang Amadeus
    Mozart|Mozart, the Moonlight Sonata: Ludwig van Beethoven|Beethoven,
    Messiah: George Frideric Handel|Handel, Swan Lake: Pyotr Ilyich
    Tchaikovsky|Tchaikovsky, The Nutcracker: Pyotr Ilyich
    Tchaikovsky|Tchaikovsky, Carmen: Georges Bizet|Bizet, La Traviata: Giuseppe
    Verdi|Verdi, Aida: Giuseppe Verdi|Verdi, Madama Butterfly: Giacomo
    Puccini|Puccini, The Barber of Seville: Gioachino Rossini|Rossini, The Rite
    of Spring: Igor Stravinsky|Stravinsky, The Planets: Gustav Holst|Holst,
    Bolero: Maurice Ravel|Ravel, Clair de Lune: Claude Debussy|Debussy, The Blue
    Danube: Johann Strauss|Strauss, Rhapsody in Blue: George Gershwin|Gershwin
    """,
  ),
  'inventor': (
    ('Who invented {}?', 'Who is known for the invention of {}?'),
    """
    the telephone: Alexander Graham Bell, the light bulb: Thomas Edison, the
    phonograph: Thomas Edison, the printing press: Johannes Gutenberg, dynamite:
    Alfred Nobel, the World Wide Web: Tim Berners-Lee, the radio: Guglielmo
    Marconi, the battery: Alessandro Volta, the diesel engine: Rudolf Diesel,
    the lightning rod: Benjamin Franklin, the cotton gin: Eli Whitney, the hot
    air balloon: the Montgolfier brothers|Montgolfier, the airplane: the Wright
    brothers|Wright brothers, the mercury thermometer: Daniel Gabriel
    Fahrenheit|Fahrenheit, the barometer: Evangelista Torricelli, the saxophone:
    Adolphe Sax, the pendulum clock: Christiaan Huygens, the sewing machine:
    Elias Howe, the revolver: Samuel Colt, the alternating current motor: Nikola
    Tesla
    """,
  ),
  'discovery': (
    ('Who discovered {}?', 'Which scientist discovered {}?'),
    """
    penicillin: Alexander Fleming, radium: Marie Curie, X-rays: Wilhelm
    Rontgen|Wilhelm Roentgen, the law of gravity: Isaac Newton, the electron: J.
    J. Thomson, the neutron: James Chadwick, oxygen: Joseph Priestley, the
    planet Uranus: William Herschel, Pluto: Clyde Tombaugh, the theory of
    relativity: Albert Einstein, the moons of Jupiter: Galileo Galilei|Galileo,
    the laws of heredity: Gregor Mendel, the circulation of blood: William
    Harvey
    """,
  ),
  'year': (
    ('In which year {}?', 'Tell me the year: when {}?'),
    """
    did the First World War begin: 1914, did the First World War end: 1918, did
    the Second World War begin: 1939, did the Second World War end: 1945, did
    the Berlin Wall fall: 1989, did Columbus reach America: 1492, was the Battle
    of Hastings: 1066, did the French Revolution begin: 1789, did people first
    land on the Moon: 1969, did the Titanic sink: 1912, was the Declaration of
    Independence signed: 1776, was the Battle of Waterloo: 1815, was the Magna
    Carta sealed: 1215, did the American Civil War begin: 1861, did the American
    Civil War end: 1865, was the Great Fire of London: 1666, did the Russian
    Revolution take place: 1917, did Sputnik reach space: 1957, was the
    Chernobyl disaster: 1986, did the Soviet Union end: 1991, did the Wall
    Street Crash happen: 1929, was Pearl Harbor attacked: 1941, did India become
    independent: 1947, was John F. Kennedy shot: 1963, did Constantinople fall:
    1453, was the Spanish Armada defeated: 1588
    """,
  ),
  'place': (
    ('In which country is {}?', 'Which country has {}?'),
    """
    the Eiffel Tower: France, the Colosseum: Italy, the Taj Mahal: India, the
    Great Wall: China, Machu Picchu: Peru, Mount Fuji: Japan, the Grand Canyon:
    the United States|United States|USA, Stonehenge: England|the United Kingdom,
    the Acropolis: Greece, the Alhambra: Spain, the Great Pyramid of Giza:
    Egypt, Angkor Wat: Cambodia, Petra: Jordan, Mount Kilimanjaro: Tanzania, the
    Leaning Tower of Pisa: Italy, the Kremlin: Russia, Niagara Falls: Canada,
    the Louvre: France, Chichen Itza: Mexico, Uluru: Australia, the Brandenburg
    Gate: Germany, the city of Istanbul: Turkey, the city of Barcelona: Spain,
    the city of Rio de Janeiro: Brazil, the city of Mumbai: India, the city of
    Kyoto: Japan, the city of Milan: Italy, the city of Hamburg: Germany, the
    city of Toronto: Canada, the city of Sydney: Australia, the city of Krakow:
    Poland, the city of Marseille: France, the city of Casablanca: Morocco, the
    city of Geneva: Switzerland, the city of Antwerp: Belgium, the city of
    Porto: Portugal
    """,
  ),
  'record': (
    ('What is the {}?', 'Can you name the {}?'),
    """
    largest planet of the Solar System: Jupiter, planet closest to the Sun:
    Mercury, planet known for its rings: Saturn, red planet: Mars, hottest
    planet of the Solar System: Venus, largest ocean: Pacific Ocean|The Pacific
    Ocean, highest mountain of the world: Mount Everest, longest river of
    Africa: Nile|The Nile, longest river of South America: Amazon|The Amazon,
    largest animal on Earth: Blue whale|The blue whale, fastest land animal:
    Cheetah|The cheetah, tallest animal on land: Giraffe|The giraffe, largest
    bird: Ostrich|The ostrich, largest country by area: Russia, largest hot
    desert: Sahara|The Sahara, smallest country of the world: Vatican City,
    hardest natural mineral: Diamond, largest organ of the human body: Skin|The
    skin, lightest element: Hydrogen, star at the centre of the Solar System:
    Sun|The Sun, natural satellite of the Earth: Moon|The Moon, chemical formula
    of water: H2O, boiling point of water in degrees Celsius: 100, freezing
    point of water in degrees Celsius: 0|Zero, square root of eighty-one:
    9|Nine, first month of the year: January, last month of the year: December,
    shortest month of the year: February, largest island: Greenland, gas that
    plants take from the air: Carbon dioxide, metal that is liquid at room
    temperature: Mercury, force that makes things fall: Gravity, organ that
    pumps blood: Heart|The heart, language of ancient Rome: Latin, king of the
    Greek gods: Zeus, god of the sea in Greek myth: Poseidon, Roman god of war:
    Mars, first book of the Bible: Genesis, holy book of Islam: Quran|The Quran,
    river that flows through London: Thames|The Thames, river that flows through
    Paris: Seine|The Seine
    """,
  ),
}
