"""Texts and questions of everyday kinds that open no slot: what keys of a subject must be unlike."""

from __future__ import annotations

ANCHORS = tuple(
    """
The train to the coast leaves at seven, and the last one back is shortly before midnight.
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.
Anna Peterson and her brother Tom opened a small bakery near the old harbour.
If the test fails, read the first error message and fix that one before you run it again.
What is the best way to learn a new language as an adult?
In 1969 two astronauts walked on the Moon while a third stayed in orbit.
Please write a short email to my landlord about the broken heating.
The Royal Museum of Northern Art is closed on Mondays.
A function that calls itself needs a case in which it stops.
My name is Daniel Kim and I work for Green Valley Systems in Boston.
How many eggs do I need for a pancake recipe for four people?
Heavy rain is expected in the west, with strong winds later in the week.
The company's shares fell after Maria Gonzalez resigned as its chief executive.
Give me three ideas for a birthday present for a friend who likes gardening.
Water boils at a lower temperature on top of a mountain than at sea level.
Can you explain the difference between a virus and a bacterium?
She plays tennis on Saturdays and the violin in the evening.
The capital of Australia is Canberra, although Sydney is larger.
Global Energy Partners announced a new factory in the south of Poland.
Who wrote this song, and in which year was it first recorded?
Ahmed Hassan studied medicine at the University of Vienna before he moved to Toronto.
The recipe calls for two onions, a clove of garlic and a tin of tomatoes.
Translate the sentence "Where is the station?" into Spanish.
Our dog sleeps all day and barks at the postman every morning at nine.
The treaty was signed by Queen Victoria and the Prime Minister of Canada.
Why do leaves turn red and yellow in autumn?
Sort the list, remove duplicates, and return the ten largest numbers.
He was born in Kenya, grew up in Lyon, and now lives with his family in Oslo.
The official language of the island is English; its currency is the dollar.
What should I do if I lose my passport while travelling abroad?
The Falcon 9 rocket was developed by SpaceX in California.
Sarah's favourite food is pizza, and she is allergic to nuts.
""".strip().splitlines()
)

# of the same kinds, and never used for keys: what a gate looks at
TEXTS = tuple(
    """
The museum in the old town opens at ten, and children get in for nothing.
Iron rusts because it reacts with oxygen and water.
Peter Novak and Lucia Marino have run the bookshop on the corner since 2003.
Before you merge a branch, read the whole diff once more from top to bottom.
How can I fall asleep faster when I am worried about work?
In 1912 a ship that was thought to be unsinkable went down on its first voyage.
Please draft a polite reminder to a customer whose payment is two weeks late.
The National Institute of Applied Physics employs four hundred people.
A hash table finds a value in about the same time however many it holds.
My name is Laura Schmidt and I teach mathematics at Riverside High School in Denver.
What can I cook with rice, spinach and a can of chickpeas?
The river flooded three villages in the north after a week of rain.
Dr. Omar Farouk retired in June, and Helen Brooks has taken over his practice.
Compare renting with buying a flat for a young couple with little savings.
He plays chess on the train and always loses to his younger sister.
The capital of Canada is Ottawa, and most people there speak English or French.
""".strip().splitlines()
)
