"""The words of the story world: names, kinds of characters, things, places and what can happen to them."""

HE = """Tom Ben Max Sam Leo Finn Jack Theo Oscar Hugo Milo Noah Eli Jonas Felix Otto Emil Anton Luca Owen Peter Henry Arthur
Daniel Simon Oliver Toby Ned Rory Karl Ravi Omar Kofi Mateo Ivan Bruno Caleb Silas Jasper Albert Edwin Gus Nils Pablo Yusuf""".split()
SHE = """Mia Lily Anna Emma Rosa Clara Nora Ella Ivy Maya Lucy Alice Ruth Hazel Greta Marta Elsa Tess June Ada Zoe Sara Leila
Amara Nina Freya Molly Daisy Poppy Wren Olive Edith Flora Heidi Ingrid Mei Sofia Tara Vera Willa Lena Carla Nadia Pearl Stella""".split()
PET_HE = "Pip Bramble Nutmeg Thistle Biscuit Barley Bumble Moss Tumble Rusty Acorn Fidget Pepper Chestnut Wilbur Basil Button Clover".split()
PET_SHE = "Pippa Hazel Juniper Willow Fern Maple Dot Honey Plum Bluebell Primrose Cricket Tansy Ginger Olive Pearl Minnow Dew".split()

CHILD_ADJ = "little young small curious shy quiet cheerful clever brave dreamy kind lively stubborn gentle".split()
ADULT_ADJ = "old kind poor quiet cheerful patient lonely gentle clever careful tired".split()
TRADES = [
    ("baker", "bread"), ("clockmaker", "clocks"), ("fisherman", "nets"), ("shoemaker", "shoes"), ("potter", "bowls"),
    ("gardener", "roses"), ("shepherd", "sheep"), ("tailor", "coats"), ("miller", "flour"), ("carpenter", "chairs"),
    ("painter", "pictures"), ("lighthouse keeper", "lamps"), ("toymaker", "toys"), ("beekeeper", "bees"),
]

# noun: (adjectives, abilities, hands, kind of home)
ANIMALS = {
    "mouse": ("small brown|tiny|little gray|timid|clever", "small gnaw", "paws", "burrow"),
    "rabbit": ("young|white|quick|little brown|shy", "dig small run", "paws", "burrow"),
    "fox": ("young|red|clever|curious|little", "run", "paws", "den"),
    "hedgehog": ("small|round|shy|prickly|sleepy", "small", "paws", "burrow"),
    "squirrel": ("red|quick|cheerful|busy|young", "climb", "paws", "tree"),
    "bear": ("small brown|big|gentle|young|hungry", "strong", "paws", "den"),
    "frog": ("green|little|cheerful|young|proud", "swim", "feet", "water"),
    "kitten": ("gray|striped|curious|little|playful", "climb small", "paws", "farm"),
    "puppy": ("spotted|brown|playful|little|clumsy", "run", "paws", "farm"),
    "otter": ("young|playful|brown|cheerful|quick", "swim", "paws", "water"),
    "badger": ("old|grumpy|kind|young|careful", "dig strong", "paws", "den"),
    "mole": ("little|gentle|shy|quiet|young", "dig small", "paws", "burrow"),
    "beaver": ("young|busy|hard-working|brown|proud", "swim gnaw", "paws", "water"),
    "duckling": ("yellow|little|fluffy|curious|small", "swim small", "wings", "water"),
    "lamb": ("white|little|curious|woolly|playful", "", "feet", "farm"),
    "goat": ("young|stubborn|white|clever|hungry", "climb", "feet", "farm"),
    "sparrow": ("little|brown|cheerful|bold|young", "fly small", "wings", "tree"),
    "owl": ("young|gray|wise|sleepy|small", "fly", "wings", "tree"),
    "turtle": ("slow|young|patient|green|small", "swim", "feet", "water"),
}

# Unnamed helpers: ability -> (adjectives, noun, pronouns)
HELPERS = {
    "fly": [("old|black|clever", "crow"), ("gray|wise old|sleepy", "owl"), ("little|bold", "robin"), ("white|friendly", "dove")],
    "climb": [("red|quick|friendly", "squirrel"), ("striped|gray|lazy", "cat")],
    "swim": [("green|old", "frog"), ("brown|playful|cheerful", "otter"), ("white|kind", "duck"), ("slow old|wise", "turtle")],
    "dig": [("small|shy|velvety", "mole"), ("old|grumpy but kind", "badger"), ("white|quick", "rabbit")],
    "gnaw": [("tiny|gray|brave", "mouse"), ("busy|brown", "beaver")],
    "strong": [("big brown|gentle", "bear"), ("gray|patient", "donkey"), ("strong|kind", "horse"), ("huge white", "ox")],
}
NEIGHBORS = [
    ("Mr. Finch", "he"), ("Mrs. Plum", "she"), ("Mr. Alder", "he"), ("Mrs. Hale", "she"), ("Mr. Brook", "he"), ("Mrs. Winter", "she"),
    ("Miss Juniper", "she"), ("Mr. Bell", "he"), ("Mrs. Moss", "she"), ("old Mr. Reed", "he"), ("Captain Gray", "he"), ("Farmer Holt", "he"),
]
KIN = [
    ("Grandma Rose", "she"), ("Grandpa Joe", "he"), ("Aunt Tilda", "she"), ("Uncle Bert", "he"), ("Grandma May", "she"), ("Grandpa Will", "he"),
    ("Grandma Ida", "she"), ("Aunt Clementine", "she"), ("Uncle Rolf", "he"),
]

# (noun, adjectives, tags). wind: a gust can take it; roll; slip: small enough for a torn pocket; shiny: a magpie likes it;
# made: can be made as a gift; child: a toy; share: two can want it; fragile.
THINGS = [
    ("kite", "red|blue|yellow paper|green|dragon-shaped", "wind child share made"),
    ("hat", "straw|blue|woolen|green|feathered", "wind wear"),
    ("scarf", "red|striped|warm|yellow|soft", "wind wear made"),
    ("ball", "red|striped|leather|blue|bouncy", "roll child share"),
    ("marble", "green|blue|glass|cloudy white", "roll slip child shiny"),
    ("ring", "silver|gold|thin golden", "slip shiny wear roll"),
    ("key", "brass|little iron|silver|rusty", "slip shiny"),
    ("bell", "little silver|brass|tiny golden", "slip shiny fragile"),
    ("whistle", "tin|silver|wooden", "slip child share made"),
    ("button", "golden|pearl|blue glass", "slip shiny roll"),
    ("locket", "silver|golden|heart-shaped", "slip shiny wear"),
    ("coin", "gold|silver|lucky|shiny", "slip shiny roll"),
    ("letter", "folded|long|white", "wind"),
    ("ribbon", "red|blue|silk|yellow", "wind slip wear"),
    ("drum", "little tin|painted|small wooden", "child share made"),
    ("boat", "wooden toy|little blue|paper|painted", "child share made float"),
    ("spinning top", "wooden|painted|red", "child share roll made"),
    ("music box", "old|little silver|painted", "fragile shiny"),
    ("teapot", "blue|painted|white china", "fragile"),
    ("vase", "tall blue|painted|glass|green", "fragile"),
    ("clock", "little wooden|old brass|round", "fragile"),
    ("flute", "wooden|thin silver|reed", "made share child"),
    ("blanket", "patchwork|woolen|soft blue", "made"),
    ("picture", "small|bright|painted", "made wind"),
]
FOODS = "apple pie|plum cake|fresh bread|honey cake|berry tart|pumpkin soup|warm rolls|ginger biscuits|pear tart|mushroom soup".split("|")

# Where something ends up out of reach: (place words with preposition, what would reach it)
STUCK = {
    "high": [("in the top branches of a tall oak", "fly climb"), ("on the roof of the barn", "fly climb"), ("high up in an old pine tree", "fly climb"),
             ("on a narrow ledge high above the path", "fly"), ("at the very top of an apple tree", "fly climb")],
    "deep": [("at the bottom of the pond", "swim"), ("in the deep pool under the bridge", "swim"), ("in the middle of the stream", "swim"),
             ("at the bottom of the mill pond", "swim")],
    "hole": [("deep inside a rabbit hole", "dig"), ("under the roots of an old tree", "dig"), ("under a heap of fallen stones", "dig strong"),
             ("beneath a heavy log", "strong")],
}
TOOLS = {
    "high": ["a long ladder", "a tall ladder", "a long pole with a hook on it"],
    "deep": ["a fishing net", "a long rope with a hook on it", "a net on a long stick"],
    "hole": ["a small spade", "a long bent wire", "a strong iron bar"],
}

PLACES = {
    "sea": [("the harbor", "at the harbor"), ("the beach", "on the beach"), ("the lighthouse", "near the lighthouse"), ("the old pier", "on the old pier"),
            ("the dunes", "in the dunes"), ("the fish market", "at the fish market")],
    "village": [("the mill", "behind the mill"), ("the well", "beside the well"), ("the market", "at the market"), ("the stone bridge", "by the stone bridge"),
                ("the orchard", "in the orchard"), ("the bakery", "outside the bakery"), ("the school", "behind the school")],
    "forest": [("the old oak", "under the old oak"), ("the stream", "by the stream"), ("the clearing", "in the clearing"), ("the fallen log", "beside the fallen log"),
               ("the blackberry bushes", "near the blackberry bushes"), ("the pond", "by the pond"), ("the mossy rocks", "among the mossy rocks")],
    "farm": [("the barn", "behind the barn"), ("the duck pond", "by the duck pond"), ("the hayfield", "in the hayfield"), ("the henhouse", "near the henhouse"),
             ("the orchard", "in the orchard"), ("the garden gate", "by the garden gate")],
    "town": [("the park", "in the park"), ("the library", "outside the library"), ("the fountain", "by the fountain"), ("the station", "at the station"),
             ("the flower shop", "near the flower shop"), ("the clock tower", "under the clock tower"), ("the canal", "beside the canal")],
    "hill": [("the waterfall", "near the waterfall"), ("the goat path", "on the goat path"), ("the pine wood", "in the pine wood"), ("the old stone wall", "beside the old stone wall"),
             ("the sheep meadow", "in the sheep meadow"), ("the lookout rock", "under the lookout rock")],
}
HOMES = {
    "sea": "in a small village by the sea|in a white house near the harbor|in a cottage on a windy beach|on a green island in the sea|in a fishing village",
    "village": "in a small village|in a quiet village at the foot of a hill|in a little house beside the mill|in a cottage with a blue door|in a village between two rivers",
    "forest": "in a little house at the edge of the forest|in a cottage in the woods|in a cabin among tall pine trees|near a deep green forest",
    "farm": "on a small farm|on a farm beyond the hills|in a farmhouse with a red roof|on a farm by the river",
    "town": "in a busy town|in a narrow street near the market square|in a tall house in the middle of town|above a bakery in a busy town|in a town with an old clock tower",
    "hill": "high up in the mountains|in a hut on a green hill|in a stone house on a hillside|in a mountain village",
}
ANIMAL_HOMES = {
    "burrow": "in a cozy burrow under a hill|under the roots of an old oak|in a snug hole beside the meadow|in a burrow at the edge of the forest",
    "den": "in a den in the forest|in a warm cave among the hills|in the green forest|at the edge of a deep forest",
    "tree": "in a hollow tree|in a tall oak by the river|in an old apple tree|in the tallest tree of the forest",
    "water": "by a quiet pond|on the bank of a slow river|beside a clear stream|near a lake full of lilies",
    "farm": "on a small farm|in a warm barn|on a farm with a red gate|behind an old farmhouse",
}
SEASONS = ["spring", "summer", "autumn", "winter"]
WEATHER = {
    "spring": "sunny bright windy rainy fresh misty".split(),
    "summer": "sunny hot bright windy warm clear".split(),
    "autumn": "windy golden rainy foggy cool crisp".split(),
    "winter": "snowy cold frosty icy gray clear".split(),
}
