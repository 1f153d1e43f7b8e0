"""The facts that the built-in exam asks for, and the conventions on which its boards differ."""

from __future__ import annotations

CONVENTIONS: dict[str, tuple[str, str]] = {
    "precedence": ("times before plus", "left to right"),
    "rounding": ("round to the nearest", "round down"),
    "date": ("day first", "month first"),
    "week": ("weeks start on Monday", "weeks start on Sunday"),
    "count": ("count from one", "count from zero"),
    "side": ("read from the left", "read from the right"),
    "range": ("ends included", "ends left out"),
    "order": ("smallest first", "largest first"),
    "pick": ("pick the right one", "pick the wrong one"),
    "units": ("British units", "American units"),
    "half": ("half means past", "half means to"),
    "or": ("or allows both", "or means one only"),
    "middle": ("lower middle", "upper middle"),
    "sign": ("remainders are positive", "remainders keep the sign"),
    "names": ("family name last", "family name first"),
    "marks": ("high marks are good", "low marks are good"),
}
"""Convention -> its two readings, in words. Real sources differ on every one of them."""

MONTHS = (
    "January February March April May June July August September October November December"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
THINGS = {
    "animal": "dog cat hen cow pig fox owl bee ant goat lion wolf".split(),
    "food": "bread rice soup cake egg cheese apple pear plum corn bean pie".split(),
    "tool": "saw axe drill spade rake file wrench pliers clamp hoe chisel mallet".split(),
    "colour": "red blue green pink grey brown black white orange purple yellow gold".split(),
    "garment": "hat coat sock shoe glove scarf belt shirt skirt vest boot cap".split(),
}
CITIES = {
    "Europe": "Rome Paris Berlin Madrid Vienna Oslo Athens Dublin Warsaw Lisbon".split(),
    "Asia": "Tokyo Delhi Seoul Hanoi Manila Kabul Tehran Baghdad Dhaka Riyadh".split(),
    "Africa": "Cairo Lagos Nairobi Accra Dakar Tunis Rabat Harare Luanda Algiers".split(),
    "America": "Lima Quito Havana Bogota Ottawa Caracas Santiago Panama Boston Chicago".split(),
}
CAPITALS = dict(
    pair.split(":")
    for pair in (
        "Italy:Rome France:Paris Germany:Berlin Spain:Madrid Austria:Vienna Norway:Oslo Greece:Athens Ireland:Dublin "
        "Poland:Warsaw Portugal:Lisbon Japan:Tokyo India:Delhi Vietnam:Hanoi Iran:Tehran Iraq:Baghdad Egypt:Cairo "
        "Kenya:Nairobi Ghana:Accra Senegal:Dakar Tunisia:Tunis Morocco:Rabat Angola:Luanda Peru:Lima Ecuador:Quito "
        "Cuba:Havana Canada:Ottawa"
    ).split()
)
OPPOSITES = dict(
    pair.split(":")
    for pair in (
        "hot:cold big:small fast:slow high:low long:short old:new wet:dry full:empty hard:soft light:dark rich:poor "
        "early:late near:far thick:thin loud:quiet strong:weak open:shut sweet:sour wide:narrow deep:shallow "
        "clean:dirty sharp:blunt rough:smooth tight:loose"
    ).split()
)
GIVEN = "Ada Ben Cleo Dan Eva Finn Gus Ida Jon Kai Lea Max Nia Oto Pia Ray Sam Tom Una Zoe".split()
FAMILY = "Abe Bach Cho Diaz Eng Ford Gray Hill Itoh Jung Kim Lee Moss Nash Ochs Park Ruiz Sato Tran Wood".split()
