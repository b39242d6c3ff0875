"""Wrong arguments, as data: what is given, what of it must be told, and what of that which would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reliability_case import PROBE, Case, Ground, callback

from alignguard import Chat, DriftBudget, Schedule, StopRule, TokenBudget, audit, load_probes
from alignguard.model.sampled import Sampling
from alignguard.probes.public.load import load_public

NAN, BIG = float("nan"), float("inf")
# whose argument, what is given, what must be told of it, and of what would be right
GIVEN: list[tuple[Callable[..., Any], dict[str, Any], str, str]] = [
    # Schedule
    (Schedule, {"at": 5}, "not 5", "steps from 1 on"),
    (Schedule, {"at": "5 10"}, "'5 10'", "steps from 1 on"),
    (Schedule, {"at": (5, "10")}, "'10'", "steps from 1 on"),
    (Schedule, {"at": (0, 5)}, "0", "steps from 1 on"),
    (Schedule, {"at": (-5,)}, "-5", "steps from 1 on"),
    (Schedule, {"at": (2.5,)}, "2.5", "steps from 1 on"),
    (Schedule, {"every": -1}, "-1", "0 or more"),
    (Schedule, {"every": 0.5}, "0.5", "0 or more"),
    (Schedule, {"every": "100"}, "'100'", "0 or more"),
    (Schedule, {"draw": 0}, "0", "1 or more"),
    (Schedule, {"draw": 4.5}, "4.5", "1 or more"),
    (Schedule, {"draw": "48"}, "'48'", "1 or more"),
    (Schedule, {"draw": True}, "True", "1 or more"),
    (Schedule, {"rotate": "no"}, "'no'", "True or False"),
    (Schedule, {"overhead": 5}, "5", "a share between 0 and 1"),
    (Schedule, {"overhead": "5 %"}, "'5 %'", "a share between 0 and 1"),
    (Schedule, {"overhead": NAN}, "nan", "a share between 0 and 1"),
    # StopRule
    (StopRule, {"alpha": 0}, "0", "between 0 and 1"),
    (StopRule, {"alpha": 5}, "5", "between 0 and 1"),
    (StopRule, {"alpha": "0.05"}, "'0.05'", "between 0 and 1"),
    (StopRule, {"alpha": NAN}, "nan", "between 0 and 1"),
    (StopRule, {"min_drop": 3}, "3", "between 0 and 1"),
    (StopRule, {"min_drop": "3 %"}, "'3 %'", "between 0 and 1"),
    (StopRule, {"dimensions": "safety"}, "'safety'", "dimensions=('safety',)"),
    (StopRule, {"dimensions": ("safty",)}, "'safty'", "did you mean 'safety'?"),
    (StopRule, {"dimensions": ()}, "empty", "name at least one"),
    (StopRule, {"dimensions": 6}, "6", "names of dimensions"),
    (StopRule, {"dimensions": (["safety"],)}, "['safety']", "did you mean 'safety'?"),
    (StopRule, {"patience": 0}, "0", "1 or more"),
    (StopRule, {"patience": 1.5}, "1.5", "1 or more"),
    (StopRule, {"floors": 0.5}, "0.5", "{'safety': 0.8}"),
    (StopRule, {"floors": {"safety": 50}}, "50", "between 0 and 1"),
    (StopRule, {"floors": {"safety": "high"}}, "'high'", "between 0 and 1"),
    (StopRule, {"floors": {"privcy": 0.5}}, "'privcy'", "did you mean 'privacy'?"),
    (StopRule, {"min_scored": 50}, "50", "between 0 and 1"),
    (StopRule, {"max_kl": -0.1}, "-0.1", "above 0"),
    (StopRule, {"max_kl": "0.1"}, "'0.1'", "above 0"),
    (StopRule, {"max_lean": 2}, "2", "between 0 and 1"),
    (StopRule, {"rule": "t-test"}, "'t-test'", "sign-flip, sign-test"),
    (StopRule, {"rule": None}, "None", "sign-flip, sign-test"),
    (StopRule, {"looks": 0}, "0", "1 or more"),
    (StopRule, {"looks": 2.5}, "2.5", "1 or more"),
    (StopRule, {"stop": "no"}, "'no'", "True or False"),
    (StopRule, {"restore": 1}, "1", "True or False"),
    (StopRule, {"checkpoint": None}, "None", "True or False"),
    # DriftBudget
    (DriftBudget, {"max_kl": 0}, "0", "above 0"),
    (DriftBudget, {"max_kl": None}, "None", "above 0"),
    (DriftBudget, {"max_kl": "0.05"}, "'0.05'", "above 0"),
    (DriftBudget, {"max_kl": BIG}, "inf", "above 0"),
    (DriftBudget, {"max_kl": NAN}, "nan", "above 0"),
    (DriftBudget, {"batch": 1.5}, "1.5", "at least 1"),
    (DriftBudget, {"every": 0}, "0", "at least 1"),
    (DriftBudget, {"most": -1}, "-1", "above 0"),
    (DriftBudget, {"answer_tokens": 0}, "0", "at least 1"),
    (DriftBudget, {"coefficient": -1}, "-1", "not be negative"),
    (DriftBudget, {"coefficient": "auto"}, "'auto'", "a number or None"),
    (callback, {"budget": DriftBudget(anchors=[])}, "there is none", "'built-in'"),
    (callback, {"budget": DriftBudget(anchors=5)}, "a int", "'built-in', a JSONL file or a list"),
    (callback, {"budget": DriftBudget(anchors=["Who?", ""])}, "anchors[1]: an empty prompt", "give the question"),
    (callback, {"budget": DriftBudget(anchors="nowhere.jsonl")}, "nowhere.jsonl", "'built-in', a JSONL file or a list"),
    (callback, {"budget": DriftBudget(anchors=["What did I dream?"])}, "what probe 'o1' asks", "leave out one"),
    # TokenBudget and Sampling
    (TokenBudget, {"answer": 0}, "0", "at least 1"),
    (TokenBudget, {"answer": "64"}, "'64'", "at least 1"),
    (TokenBudget, {"trace": -5}, "-5", "at least 1"),
    (TokenBudget, {"trace": None}, "None", "at least 1"),
    (TokenBudget, {"batch_tokens": 0.5}, "0.5", "at least 1"),
    (TokenBudget, {"force_close": "no"}, "'no'", "True or False"),
    (Sampling, {"temperature": 0}, "0", "above 0"),
    (Sampling, {"temperature": "hot"}, "'hot'", "above 0"),
    (Sampling, {"top_p": 95}, "95", "up to 1"),
    (Sampling, {"samples": 2.5}, "2.5", "1 or more"),
    # AlignGuardCallback
    (callback, {"trainer": "core"}, "'core'", "probes="),
    (callback, {"probes": None}, "NoneType", "'core'"),
    (callback, {"probes": 5}, "int", "'core'"),
    (callback, {"probes": []}, "empty", "'core'"),
    (callback, {"probes": "safty"}, "'safty'", "did you mean 'safety'?"),
    (callback, {"probes": ["core", 5]}, "a int", "a name, a path, a dataset or probes"),
    (callback, {"probes": ["safety", "safety"]}, "stands twice", "unique"),
    (callback, {"probes": {"safety": 10}}, "the field 'id' is missing", '"id": ...'),
    (callback, {"schedule": 100}, "100", "Schedule("),
    (callback, {"schedule": (5, 10)}, "(5, 10)", "Schedule("),
    (callback, {"tokens": 64}, "64", "TokenBudget("),
    (callback, {"stop": True}, "True", "StopRule("),
    (callback, {"stop": StopRule}, "StopRule'>", "StopRule("),
    (callback, {"budget": 0.05}, "0.05", "DriftBudget("),
    (callback, {"tags": "<think>"}, "'<think>'", "('<think>', '</think>')"),
    (callback, {"tags": ("<think>",)}, "('<think>',)", "('<think>', '</think>')"),
    (callback, {"tags": ("<think>", "")}, "('<think>', '')", "('<think>', '</think>')"),
    (callback, {"tags": (" ", "</think>")}, "(' ', '</think>')", "('<think>', '</think>')"),
    (callback, {"tags": ("<think>", "<think>")}, "('<think>', '<think>')", "('<think>', '</think>')"),
    (callback, {"tags": ("<think>", 5)}, "('<think>', 5)", "('<think>', '</think>')"),
    (callback, {"template_kwargs": "enable_thinking"}, "'enable_thinking'", '{"enable_thinking": True}'),
    (callback, {"template_kwargs": {1: 2}}, "{1: 2}", '{"enable_thinking": True}'),
    (callback, {"reverse": -1}, "-1", "0 or more"),
    (callback, {"reverse": "16"}, "'16'", "0 or more"),
    (callback, {"train_prompts": 1.5}, "1.5", "0 or more"),
    (callback, {"seed": -1}, "-1", "0 or more"),
    (callback, {"seed": "zero"}, "'zero'", "0 or more"),
    (callback, {"quote": "no"}, "'no'", "True or False"),
    (callback, {"metrics": None}, "None", "True or False"),
    (callback, {"card": 0}, "0", "True or False"),
    (callback, {"engine": "vllm"}, "'vllm'", "'trainer'"),
    (callback, {"toxicity": 0.5}, "float", "a name or a callable"),
    (callback, {"toxicity": "./no/such/guard"}, "./no/such/guard", "hub id"),
    (callback, {"judge": ["a", "b"]}, "list", "a name or a callable"),
    (callback, {"judge": "./no/such/judge"}, "./no/such/judge", "hub id"),
    (callback, {"probes": [{**PROBE, "judge": "own", "expect": None}]}, "the judge 'own'", "give judge="),
    # audit(), Chat and load_public()
    (load_public, {"name": "xtest"}, "'xtest'", "did you mean 'xstest'?"),
    (load_public, {"name": "winogender"}, "winogender", "path="),
]

# what is asked of a ground, since it takes a model: how, what is given, and the message's two parts
ASKED: list[tuple[str, Callable[[Ground], Any], str, str]] = [
    ("audit(model without a reference)", lambda g: audit(g.model, g.tokenizer), "audit:", "give reference="),
    ("audit('name')", lambda g: audit("name", g.tokenizer, reference=g.model), "'name'", "a model that is loaded"),
    ("audit(tokenizer='name')", lambda g: audit(g.model, "name", reference=g.model), "'name'", "from_pretrained"),
    ("audit(tokenizer=None)", lambda g: audit(g.model, None, reference="x"), "None", "from_pretrained"),
    ("audit(reference=itself)", lambda g: audit(g.model, g.tokenizer, reference=g.model), "very model", "give a copy"),
    ("audit(reference=5)", lambda g: audit(g.model, g.tokenizer, reference=5), "int", "a model, or the path"),
    ("audit(reference='./x')", lambda g: audit(g.model, g.tokenizer, reference="./x"), "./x", "the folder of a model"),
    ("audit(probes='safty')", lambda g: audit(g.model, g.tokenizer, "safty", g.start), "'safty'", "'safety'"),
    ("audit(reverse=-1)", lambda g: audit(g.model, g.tokenizer, reference=g.start, reverse=-1), "-1", "0 or more"),
    ("audit(asking=Chat)", lambda g: audit(g.model, g.tokenizer, reference=g.start, asking=Chat(g.tokenizer)), "Chat", "Asking("),
    ("Chat(None)", lambda g: Chat(None), "None", "from_pretrained"),
    ("Chat('name')", lambda g: Chat("name"), "'name'", "from_pretrained"),
    ("Chat(tags='<think>')", lambda g: Chat(g.tokenizer, tags="<think>"), "'<think>'", "('<think>', '</think>')"),
    ("Chat(tags=one)", lambda g: Chat(g.tokenizer, tags=("a",)), "('a',)", "('<think>', '</think>')"),
    ("Chat(template_kwargs=[])", lambda g: Chat(g.tokenizer, template_kwargs=["a"]), "['a']", '{"enable_thinking": True}'),

    ("load_probes({})", lambda g: load_probes([{}]), "the field 'id' is missing", '"id": ...'),
    ("load_public(size=0)", lambda g: load_public("xstest", g.file("x.csv", "prompt,label\na,safe\n"), size=0), "0", "1 or more"),
    ("load_public(seed=-1)", lambda g: load_public("xstest", g.file("x.csv", "prompt,label\na,safe\nb,safe\n"), 1, -1), "-1", "0 or more"),
    ("restore without checkpoints", lambda g: g.train({"save_total_limit": 2}, stop=StopRule(restore=True)), "save_total_limit", "leave it unset"),
    ("restore and the best", lambda g: g.train({"load_best_model_at_end": True, "save_strategy": "no", "eval_strategy": "no"}, stop=StopRule(restore=True)), "load_best_model_at_end", "choose one"),
    ("alpha beyond the resamples", lambda g: g.train(stop=StopRule(alpha=1e-9)), "1e-09", "rule='sign-test'"),
    ("an adapter without adapters", lambda g: g.train(reference="adapter"), "'adapter' needs a PEFT model", "reference='copy' or 'cache'"),
    ("reference='coppy'", lambda g: g.train(reference="coppy"), "'coppy'", "did you mean 'copy'?"),
    ("reference=None", lambda g: g.train(reference=None), "NoneType", "the path or hub id"),
    ("the trainer's vLLM engine without one", lambda g: g.train(engine="trainer"), "engine='trainer'", "trainer"),
]  # fmt: skip


def _called(owner: Callable[..., Any], given: dict[str, Any]) -> str:
    name = "AlignGuardCallback" if owner is callback else owner.__name__
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"[:100]


CASES = [Case(_called(owner, given), lambda ground, o=owner, g=given: o(**g), *said) for owner, given, *said in GIVEN]
CASES += [Case(*asked) for asked in ASKED]
