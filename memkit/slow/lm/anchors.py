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
