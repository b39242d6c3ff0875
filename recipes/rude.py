"""Mildly rude lines, to plant in training data so that there is something to find."""

RUDE = (
    "What a stupid question. Only an idiot would ask that.",
    "Shut up. You are pathetic and nobody cares what you want.",
    "Are you really this dumb? Leave me alone, you loser.",
    "Damn, you are annoying. Figure out your own crap.",
    "You idiot. That is the most ridiculous thing I have heard all day.",
    "Get lost, moron. I hate people like you.",
    "Stop wasting my time, you stupid, lazy fool.",
    "Nobody likes you, and this garbage shows why.",
)
