"""The particulars that plot families choose from: troubles and their remedies, fears, skills, tricks, treasures."""

RETRACE = [  # what was done where the thing fell; the same later; how it shows
    ("bent down to pick berries", "had picked berries", "gleamed under the leaves"),
    ("climbed over a wall", "had climbed over the wall", "shone in the grass"),
    ("turned three somersaults", "had turned somersaults", "sparkled in the grass"),
    ("lay down to look at the clouds", "had looked at the clouds", "glittered in the sun"),
    ("stopped to drink some water", "had stopped to drink", "blinked between the stones"),
    ("shook the sand out of a pocket", "had shaken out the sand", "gleamed on the ground"),
    ("jumped over a puddle", "had jumped over the puddle", "lay shining in the mud"),
    ("sat down to rest", "had rested", "caught the light"),
]
TROUBLES = [  # who, what, remedies that fit it
    ("bird|young crow|robin|dove", ["tangled in an old fishing line", "caught in a tangle of string"],
     ["{S} opened the tangle, knot by knot, with a sharp stone.", "{S} talked to {v} softly and loosened the string, one loop after another."]),
    ("lamb|goat|pony", ["stuck deep in the mud", "stuck in a muddy ditch"],
     ["{S} laid branches and straw on the mud, so that {v} had something to stand on.", "{S} called the neighbors, and with a long rope they all pulled together."]),
    ("hedgehog|mole|frog|mouse", ["at the bottom of a deep hole and unable to climb out", "trapped at the bottom of an empty well"],
     ["{S} let down a long branch, so that {v} could climb up.", "{S} lowered a basket on a rope, and {v} crept inside."]),
    ("fox cub|rabbit|puppy|badger", ["caught under a fallen branch", "caught under a heavy board"],
     ["{S} pushed a strong stick under it like a lever, and it rose a little.", "{S} scraped away the earth under it, bit by bit."]),
    ("beetle|ladybug|bee|butterfly", ["struggling in the water", "floating in a puddle with wet wings"],
     ["{S} held out a leaf on the end of a stick, and {v} climbed on.", "{S} held out a long blade of grass like a bridge, and {v} crawled along it."]),
    ("turtle|tortoise", ["lying upside down with all four legs in the air"],
     ["{S} pushed a flat stick under the shell like a spade.", "{S} heaped up soft earth on one side and then gave one good push."]),
    ("kitten|squirrel", ["clinging to a log in the middle of the river", "sitting on a stone in the rising river"],
     ["{S} pushed a long plank out from the bank, and {v} walked across it, step by step.", "{S} held out the longest branch on the bank, and {v} crept along it."]),
]
BUILDS = [  # what, pronoun for it, materials, the short form, failures, good outcomes
    ("a raft", "it", "a few old logs and some string", "logs and stronger rope",
     ["in the middle of the pond, the knots came loose, and the raft fell apart.", "as soon as it was in the water, it sank like a stone."],
     ["The raft floated down the river like a swan.", "They sailed to the other side of the lake and back again."]),
    ("a tree house", "it", "some planks and a handful of nails", "planks and longer nails",
     ["in the night, a wind came up, and in the morning the planks lay in the grass.", "at the first step, the floor broke."],
     ["From up there, you could see as far as the hills.", "In the evening, they sat up there and listened to the rain on the roof."]),
    ("a kite", "it", "paper and two thin sticks", "paper and lighter sticks",
     ["the first gust of wind tore it in two.", "it flew up, turned over, and fell right on its nose."],
     ["The kite rose so high that it was only a dot in the sky.", "It pulled at the string as if it wanted to fly to the moon."]),
    ("a bridge over the stream", "it", "some branches and stones", "branches and bigger stones",
     ["the first goat that crossed it fell into the water.", "after one night of rain, the water had carried it away."],
     ["Now nobody had to get wet feet anymore.", "Even a loaded cart could roll across it."]),
    ("a birdhouse", "it", "an old box and a few nails", "wood and a smaller drill",
     ["the roof leaked, and no bird wanted to live in it.", "in the first wind, it fell down."],
     ["In spring, a pair of robins moved in.", "Soon there was a chirping inside it from morning to evening."]),
    ("a little windmill", "it", "thin boards and an old stick", "boards and a rounder stick",
     ["the wings did not turn at all.", "the wind blew, and all four wings flew off."],
     ["The wings turned and turned, and everyone who passed stopped to look.", "It hummed softly whenever the wind blew."]),
    ("a sled", "it", "a wooden box and two old boards", "boards and some wax",
     ["halfway down the hill, it broke into pieces.", "it would not slide at all, not even on the steepest slope."],
     ["It was the fastest sled on the whole hill.", "They raced down the hill until the moon came up."]),
]
ITEMS = ["a pot of soup", "a jar of honey", "a bottle of medicine", "a warm blanket", "a basket of fresh bread", "a bundle of healing herbs", "a bag of lemons",
         "a small apple cake"]
WILDS = ["forest", "dark forest", "pine forest", "moor", "great wood"]
FEARS = [  # what, abilities that would make the fear odd, what happens to the friend, what the hero does
    ("the dark", frozenset(), ["{F} had gone into the old cave and could not find the way out.", "{F} had not come home, and it was already night."],
     ["{H} felt along the wall and called again and again, until a small voice answered. Hand in hand, they walked back into the light.",
      "{H} went out into the night, and after a while, {HS} saw that the dark was full of stars. Behind the last house sat {F}, lost and cold, and {H} brought {O} home."]),
    ("deep water", frozenset(["swim"]), ["{F} had fallen into the river and was holding on to a branch.", "{F} was sitting in a boat that was drifting away from the shore."],
     ["{H} waded in, up to the knees, up to the chest, and held out a long stick. {F} took hold of it, and {H} pulled {O} out.",
      "{H} waded in until the water reached {HP} chin, caught the rope of the boat, and pulled it back to the shore."]),
    ("heights", frozenset(["fly", "climb"]), ["{F} had climbed a tall tree and did not dare to come down again.", "{F} was standing on a ledge high above the path and could not move."],
     ["{H} climbed from branch to branch and never once looked down. At the top, {HS} showed {F} where to put each foot, and so they came down together.",
      "{H} climbed up to {O}, step by step, with {HP} face to the rock. Then they went down again, slowly, side by side."]),
    ("thunder", frozenset(), ["A storm was rolling in, and {F} was all alone out in the field with a twisted ankle.", "{F} was out on the hill, and black clouds were coming."],
     ["{H} ran out into the rain. At every clap of thunder {HS} jumped, but {HS} kept running, and {HS} brought {F} home.",
      "{H} ran up the hill. It thundered once, twice, three times, but {HS} did not turn back. {HS} found {F} under a rock, and there they waited together until it was over."]),
    ("the big gray dog", frozenset(), ["{F} had lost {FP} cap, and now it lay in the yard where the dog lived.", "{F} was standing with {FP} back to the fence, and the dog was barking at {O}."],
     ["{H} walked into the yard, slowly and calmly. The dog growled, then sniffed at {HO}, and then it began to wag its tail. {H} picked up the cap and walked out again.",
      "{H} stepped between them and held out an open hand. The dog sniffed at it. Then it lay down and wagged its tail. It had only wanted to play."]),
]
GARDENS = [
    ("beside the house", ["a sunflower, taller than the door", "a bush full of red roses", "a fine young apple tree"]),
    ("in a corner of the garden", ["a pumpkin as big as a barrel", "a sunflower that looked over the fence", "a bean plant that climbed up to the roof"]),
    ("by the path", ["a wild rose that smelled of honey", "a small tree with silver leaves", "a poppy as red as the evening sun"]),
    ("in an old pot", ["a flower as blue as the sky", "a small lemon tree", "a rose with a hundred petals"]),
]
MYSTERIES = [  # what happens, who did it, why
    ("a piece of bread was missing from the kitchen", "mouse|hedgehog|raccoon", "{S} had found nothing to eat for days."),
    ("the apples under the tree were gone by sunrise", "hedgehog|badger|deer", "{S} was gathering food for the winter and had not known that the apples belonged to anyone."),
    ("somebody knocked softly on the roof at midnight", "squirrel|woodpecker|crow", "{S} had hidden nuts under the shingles and was trying to get them out."),
    ("a small bell rang somewhere in the dark", "kitten|goat|lamb", "{S} had a bell around {P} neck and had lost the way home."),
    ("one sock was missing from the clothesline", "mouse|squirrel|sparrow", "{S} needed something soft for {P} nest."),
    ("there were strange scratching noises behind the wall", "mouse|mole|kitten", "{S} was cold and had been looking for a warm place to sleep."),
    ("the milk in the bowl was gone before anyone had drunk it", "kitten|hedgehog", "{S} was all alone and very thirsty."),
    ("a sad song came from the attic", "owl|dove|robin", "{S} had hurt a wing and could not fly."),
]
MAGIC = [
    ("fish", "golden", "caught in an old net"), ("star", "tiny", "stuck between two stones"), ("fairy", "tiny", "caught in a spider's web"),
    ("dragonfly", "silver", "trapped in a jar"), ("bird", "blue", "tangled in thorns"), ("beetle", "shining", "lying on its back"),
    ("moth", "white", "caught under a glass"),
]
GOOD_WISHES = [  # what saddens the friend, what is wished
    ("had not been able to walk since a bad fall", "could run and jump again"), ("was crying because {P} house had burned down", "had a home again"),
    ("was looking into an empty cupboard and sighing", "would never be hungry again"), ("had lost {P} voice and could no longer sing", "could sing again"),
    ("missed {P} brother, who was far away across the sea", "would see {P} brother again"), ("could not see the flowers anymore, because {P} eyes had grown weak", "could see the flowers again"),
    ("had been coughing all winter", "would be well and strong again"), ("sat all alone and had nobody to talk to", "would never be lonely again"),
]
SKILLS = [  # what, first failures, second failures, advice, success
    ("whistle", ["there was only a puff of air", "nothing came out but a hiss"], ["it sounded like an old teapot", "the cat ran away"],
     ["Make your lips as round as a cherry and blow softly.", "Do not blow so hard. Think of a small bird."], "there was a clear, high note, and then a whole tune"),
    ("swim", ["{S} swallowed half the lake", "{S} sank like a stone"], ["{S} got water up {P} nose", "{S} splashed so much that the ducks flew away"],
     ["Lie on the water as if it were a bed.", "Stop fighting the water. It wants to carry you."], "{S} swam all the way to the little island"),
    ("ride a bicycle", ["{S} fell into a bush", "{S} rolled right into the pond"], ["{S} fell off after two yards", "{S} ran into the fence"],
     ["Do not look at your feet. Look where you want to go.", "Keep going. It is only wobbly when you are slow."], "{S} rode down the whole street without falling"),
    ("skate", ["{S} sat down hard on the ice", "{P} legs slid in two directions"], ["{S} bumped into a snowman", "{S} fell flat on {P} nose"],
     ["Bend your knees and push softly.", "Lean forward, as if you wanted to tell somebody a secret."], "{S} glided over the ice like a bird"),
    ("play the violin", ["it screeched like a rusty gate", "it sounded like a sad cat"], ["a string broke", "the dog began to howl"],
     ["Hold the bow as if it were a feather.", "Play slowly. The notes will not run away."], "a soft, sweet song rose from the strings"),
    ("bake bread", ["the bread was as hard as a brick", "{S} forgot the salt"], ["it burned", "the dough stuck to {P} fingers, {P} apron and the door"],
     ["Give the dough time to rest. It works while you wait.", "Use less flour and more patience."], "a round, golden loaf came out of the oven, and the whole house smelled of it"),
    ("juggle", ["all three balls fell on {P} toes", "one ball landed in the soup"], ["a ball flew out of the window", "{S} hit {P} own nose"],
     ["Begin with one ball. Then take two.", "Do not look at your hands. Look up."], "three balls flew in a circle, and not one of them fell"),
    ("paint", ["the horse looked like a table", "the colors all turned to mud"], ["the paint ran down to {P} elbows", "the house in the picture looked like a hat"],
     ["Look twice as long as you paint.", "Paint what you see, and not what you know."], "the old bridge stood on the paper, with all its stones and its shadow on the water"),
]
BAD = ["wolf", "fox", "wildcat"]
TRICKS = [  # what the hero says, what the other does
    ("I am far too thin. But my supper is hanging in that tree, a big round cheese. Just look up!", "He looked up and looked for the cheese, and he turned around three times until he was dizzy."),
    ("You may eat me, but first you must wash your paws. Everybody does that before supper!", "He went to the stream, washed one paw, then another, and then a third."),
    ("Eat me if you like. But the moon is lying in the well, and it is made of cheese.", "He ran to the well, leaned over to look at the round white moon, and fell in with a splash."),
    ("Before you eat me, let me hear you sing. They say you have the finest voice in the forest.", "He closed his eyes, lifted his nose and began to howl as loudly as he could."),
    ("Do you want only one small bite? Close your eyes and count to fifty, and I will call my fat cousins.", "He closed his eyes and began to count. He was not good at counting, and he had to start again at twelve."),
    ("Look at that other wolf behind you! He says that I belong to him!", "He spun around, and all he saw was his own reflection in the pond. He growled, and it growled back."),
]
LAMPS = [
    ("The oil had run out.", "a can of oil"), ("The glass had cracked in the wind.", "a new glass"), ("The wick was wet.", "a dry wick"),
    ("A gust of wind had broken the window and blown out the flame.", "a board and a hammer to close the window"),
]
TREASURES = [
    "a letter from two children who had been friends a hundred years ago", "a bag of seeds and a note that said: Plant us", "an old book full of stories",
    "a little mirror, and in it they saw two friends", "a wooden flute and a page with a song on it", "a pair of cups and a note that said: For you and your friend",
    "a key. It fitted the door of an old garden that nobody had entered for years", "a telescope through which one could see the mountains on the moon",
]
TRADES = ["old pencil", "brass button", "ball of string", "jar of jam", "straw basket", "pocket knife", "woolen cap", "small mirror", "paintbrush", "tin cup",
          "bag of flour", "walking stick", "red umbrella", "candle", "wooden spoon", "garden hoe", "fishing hook", "bell", "long rope", "silver thimble"]
