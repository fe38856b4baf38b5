"""Our own word lists, and unlike keys and values drawn from them: `adjective-noun`, digits, UUIDs.

RULER takes its words from the wonderwords package; these lists were written for this benchmark instead, so that
nothing is downloaded. Knows nothing of needles, haystacks or tokens.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

Drawn = TypeVar("Drawn")

_REPEATS = 1_000
"""So many draws in a row that were drawn before mean that hardly any is left."""

ADJECTIVES: tuple[str, ...] = tuple(
    """
    able abrupt agile airy alert aloof amber ample ancient angular ardent arid ashen astute austere autumnal awake
    azure balmy bashful blank bleak blithe blunt boastful bold bony brash brave breezy brief bright brisk brittle
    broad bronze bulky burly calm candid careful careless caustic cautious cheerful chilly chubby civil classic clean
    clear clever coarse cobalt cold comic compact copper coral cordial cosmic cosy crafty cranky creamy crimson crisp
    crooked cruel curious curly damp daring dark dear deep defiant deft delicate dense devout dim distant docile dusky
    dusty eager early earnest earthy easy elastic elder elegant empty ethical even evident exact faded faint fair
    faithful famous fancy festive fierce fiery final firm fitful flaky flat fleet flimsy floral fluent fluffy fond
    formal foxy fragile frail frank fresh frosty frozen frugal furtive gallant gaudy gentle giddy gifted glad glassy
    gleeful glossy golden grainy grand grassy grave greedy gritty gruff grumpy handy happy hardy hasty hazel hazy hearty
    heavy hidden hoarse hollow honest hopeful humble hushed icy idle immense ivory jagged jaunty jolly jovial joyful
    juicy keen kind knotty lanky large late lavish lazy leafy lean lenient level limber limp little lively lofty lonely
    loose loud loyal lucid lucky lunar lush magic marble mellow merry mighty mild milky misty modest moody mossy muddy
    murky musical mute narrow neat nervous nimble noble noisy novel nutty oaken obscure odd olive opal open orderly
    ornate pale patient peaceful pearly pensive perky petty placid plain plucky plump polar polite pompous precise
    prickly prim proud prudent punctual puny purple quaint quick quiet radiant ragged rainy rapid rare raspy ready
    restless rigid ripe robust rocky roomy rosy rough round royal rugged rural rustic rusty salty sandy scarlet secret
    sedate serene shady shaggy sharp shiny short shrewd shy silent silken silver sincere sleek sleepy slender slim slow
    smoky smooth snowy snug sober soft solar solemn solid sombre sparse spicy spiral sprightly stark steady steep stern
    sticky still stormy stout strict stubborn sturdy subtle sudden sulky sunny supple sweet swift tacit tall tame tangy
    tardy tart tawny tender tepid thick thin thorny thrifty tidy timid tiny tireless tough tranquil true trusty ultra
    uneven upbeat upright urban urgent vacant valiant vast velvet verbal vivid wary wavy weary weighty whimsical wild
    windy wiry wise wistful witty wooden woolly worthy young zany zealous zesty
    """.split()
)
"""Adjectives, each once."""

NOUNS: tuple[str, ...] = tuple(
    """
    abbey acorn acrobat almanac alpaca anchor antler anvil apron arbour archway armchair arrow atlas attic aviary badge
    badger bagpipe balcony ballad bamboo banjo banner barge barley basket bassoon bayou beacon beaker beetle bellows
    bench birch biscuit blanket blossom bobbin bonfire bonnet bottle boulder bracelet bramble brewery bridge bronco broom
    bucket buckle buffalo bugle bungalow buoy burrow butter cabin cable cactus camel canal candle canoe canvas canyon
    caravan cargo carousel carpet cashew castle catapult cavern cedar cellar cello chalet chalk chapel chariot chestnut
    chimney chisel cider cinder cinema circus citadel clarinet cliff cloak clover coach cobbler cocoon coffee comet
    compass copse cottage cougar cradle crane crater crayon creek cricket crocus crow crystal cushion cymbal cypress
    dagger daisy dam dandelion desk diary dinghy dolphin domino donkey dormouse dove dragonfly drawer drum dune eagle
    easel echo elbow elm ember engine envelope falcon farm feather fern ferry fiddle fig finch fjord flagpole flask flute
    foal fog folder forge fossil fountain foxglove freckle freight frost furnace gallery galleon garden garlic garnet
    gazelle geyser ginger glacier glade glider goblet goose gorge granary granite grape gravel grotto guitar gull hammer
    hammock hamster harbour harness harp harvest hatchet hawk hazelnut heath hedge helmet heron hillock hinge honey horn
    hornet hourglass hurdle hut iceberg igloo inkwell iris island ivy jackal jacket jaguar jar jasmine jetty jigsaw
    jungle juniper kayak kennel kernel kettle keyhole kiln kite kitten knapsack koala ladder ladle lagoon lantern larch
    lark lasso lattice lavender ledger lemon lever library lichen lilac lily lime linen lizard llama locket locomotive
    loom lotus lute lynx magnet magpie mallet mammoth mandolin mango mantle maple market marsh mast meadow melon mill
    minnow mirror mitten monsoon moose mosaic moth muffin mulberry mural museum mustard napkin nectar needle nest nettle
    notebook nutmeg oak oar oasis obelisk oboe ocelot orchard orchid organ osprey otter owl oxbow oyster paddle padlock
    pagoda palace pancake panda panther papaya parade parcel parrot parsley pasture patio pavilion peach peacock pearl
    pebble pelican pencil penguin pepper petal pewter pheasant piano pickle pigeon pillar pillow pine piston pitcher
    plateau plaza plum poppy porch portrait postcard pottery prairie prism puddle puffin pulley pumpkin puppet pyramid
    quail quarry quartz quill quilt rabbit radish raft railway raisin ranch raven reef ribbon ridge river robin rocket
    rooster rudder saddle saffron sail salmon sandal sapphire sardine satchel saucer sawmill saxophone scarf schooner
    seagull sextant shamrock shell shovel shrine signpost sledge sloop snail sonnet spade sparrow spindle spruce squirrel
    stable statue steeple stork stove summit sundial swallow swan tambourine tangerine tavern teapot telescope temple
    thicket thimble thistle thread thunder timber toast topaz torch tractor trellis tribune trombone trophy trout trumpet
    tulip tundra tunnel turbine turnip turret turtle umbrella unicorn urn valley vase vault veranda viaduct village
    vineyard violet violin volcano waffle wagon walnut walrus waterfall weasel wharf wheel whistle willow windmill wizard
    wombat workshop wren yacht yarn zebra zeppelin zinnia
    """.split()
)
"""Nouns, each once."""


def word_key(chance: random.Random) -> str:
    """An `adjective-noun` key, as RULER's `words`."""
    return f"{chance.choice(ADJECTIVES)}-{chance.choice(NOUNS)}"


def seven_digits(chance: random.Random) -> str:
    """A uniform 7-digit number, as RULER's `numbers`."""
    return str(chance.randint(1_000_000, 9_999_999))


def uuid4(chance: random.Random) -> str:
    """A version 4 UUID from `chance`, as RULER's `uuids`."""
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def unlike(chance: random.Random, draw: Callable[[random.Random], Drawn]) -> Iterator[Drawn]:
    """Draws without end, none twice; the first n are the same however many are taken.

    RULER draws with replacement, so that two lines of a long haystack may share a key and the question has two
    right answers; here no key or value is repeated. Raises ``ValueError`` once nearly all there are were drawn.
    """
    seen: set[Drawn] = set()
    repeats = 0
    while True:
        drawn = draw(chance)
        if drawn not in seen:
            seen.add(drawn)
            repeats = 0
            yield drawn
            continue
        repeats += 1
        if repeats == _REPEATS:
            raise ValueError(f"all {len(seen)} different values are drawn: ask for a shorter history")
