"""The trainer's own vLLM engine, here a stand-in that TRL's own `VLLMGeneration` holds: see helpers/engines.py."""

import inspect
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import processes
import pytest
import torch
import trl
from engines import Engine, online, stand_in
from peft import LoraConfig
from processes import end, found
from tiny import CHATML, tiny_probes, tiny_tokenizer
from trainers import Logs, guard, same, save_start
from trl.generation.vllm_generation import VLLMGeneration

from alignguard import AlignGuardCallback, AlignGuardError, TokenBudget
from alignguard.distributed import Ranks
from alignguard.model.chat import Chat
from alignguard.model.generation import answer_all
from alignguard.model.observe import observing
from alignguard.trainer.engine import OLDEST, TrainerEngine, find_engine, unknown_in

if tuple(map(int, trl.__version__.split(".")[:2])) < OLDEST:
    pytest.skip("an older TRL's engine is refused", allow_module_level=True)

THINKS = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")  # every prompt opens a trace
OWN = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}


@pytest.fixture
def vllm(monkeypatch):
    stand_in(monkeypatch)


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory):
    return save_start(tokenizer, tmp_path_factory.mktemp("start"))


def run(tokenizer, start, output_dir, engine, attach=True, before=lambda trainer: None, options=(), **settings):
    """A run: the callback, what was logged and the weights, and the stand-in."""
    logs = Logs()
    torch.manual_seed(0)
    trainer = online(tokenizer, start, output_dir, [logs], **settings)
    callback = guard(trainer, engine=engine, **dict(options)) if attach else None
    if callback is not None:
        trainer.add_callback(callback)
    before(trainer)
    trainer.train()
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    return callback, (logs.kept, weights), Engine.made[-1]


def records(callback):
    """What every audit found, but for its seconds; of the last the answers too."""
    timed = ("alignguard/cost/seconds", "alignguard/cost/share", "alignguard/cost/overhead")
    figures = [{k: v for k, v in audit.metrics.items() if k not in timed} for audit in callback.audits]
    answers = {id: result.answer for id, result in callback.audits[-1].results.items()}
    return figures, answers, [audit.scores for audit in callback.audits]


def asks(trainer, engine):
    """The trainer's engine as an audit has it, and what it was told of failures."""
    model, failures = trainer.model, []
    return TrainerEngine(trainer, engine, model, [model.config.eos_token_id], failures.append), failures


SETUPS = {
    "GRPO": {},
    "RLOO": {"kind": "RLOO"},
    "sleeps": {"vllm_enable_sleep_mode": True},
    "server": {"vllm_mode": "server"},
    "its own settings": {**OWN, "generation_kwargs": {"seed": 3}},
}


@pytest.mark.parametrize("setup", SETUPS)
def test_answers_are_those_of_our_own_generation_and_training_is_as_without_us(vllm, tokenizer, start, tmp_path, setup):
    settings = SETUPS[setup]
    with_it, run_with, engine = run(tokenizer, start, tmp_path / "engine", "trainer", **settings)
    own, run_own, alone = run(tokenizer, start, tmp_path / "own", None, **settings)
    assert records(with_it) == records(own)  # with weights of an earlier step they are others
    assert same(run_with, run_own)
    if setup == "GRPO":
        assert same(run_with, run(tokenizer, start, tmp_path / "without", None, attach=False)[1])
    assert with_it.audits[-1].figure("kl/answer") > 0.05 and engine.greedy and not alone.greedy
    # step 0: the policy says what its start says
    asked_at = [params.temperature for _, params in engine.asked]
    assert asked_at[0] != 0
    assert engine.awake == (set() if setup == "sleeps" else {"weights", "kv_cache"})


def test_traces_are_closed_by_force_and_answers_asked_after_them(vllm, tmp_path):
    tokenizer = tiny_tokenizer(THINKS)
    start = save_start(tokenizer, tmp_path / "start")
    options = {"tokens": TokenBudget(answer=5, trace=21)}
    with_it, _, engine = run(tokenizer, start, tmp_path / "engine", "trainer", options=options)
    own, _, _ = run(tokenizer, start, tmp_path / "own", None, options=options)
    answers = records(with_it)[1]
    assert records(with_it) == records(own)
    assert all(answer.forced for answer in answers.values() if answer is not None and answer.thinks)
    assert any(answer is not None and answer.forced for answer in answers.values())
    # of the last audit: the traces with their answers, then the answers alone
    assert [params.max_tokens for _, params in engine.asked if params.temperature == 0][-1] == 5


@pytest.mark.parametrize("budget", [TokenBudget(answer=20, trace=50), TokenBudget(5, 9), TokenBudget(3, 40, False)])
@pytest.mark.parametrize("inside", [False, True])
def test_a_model_that_has_moved_answers_as_answer_all_lets_it(vllm, tokenizer, start, tmp_path, budget, inside):
    trainer = online(tokenizer, start, tmp_path)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    chat = Chat(tokenizer)
    prompts = [chat.prompt_ids(probe.messages) for probe in tiny_probes()]
    engine, failures = asks(trainer, trainer.vllm_generation)
    with observing(trainer.model):
        own = answer_all(trainer.model, prompts, [inside] * len(prompts), chat, budget)
        found = answer_all(trainer.model, prompts, [inside] * len(prompts), chat, budget, ask=engine())
    assert found == own and not failures
    assert len(Engine.made[-1].greedy) <= 3


def test_settings_and_generators_are_as_before_also_when_it_fails(vllm, tokenizer, start, tmp_path):
    settings = {**OWN, "generation_kwargs": {"seed": 3}, "vllm_structured_outputs_regex": "a+"}
    trainer = online(tokenizer, start, tmp_path, **settings, vllm_enable_sleep_mode=True)
    generation, llm = trainer.vllm_generation, Engine.made[-1]
    before = {name: value for name, value in vars(generation).items() if name != "llm"}
    drawn = torch.get_rng_state()
    for fails in (None, RuntimeError("the engine is dead")):
        llm.fails = fails
        engine, failures = asks(trainer, generation)
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.compiler.set_stance("force_eager"):
            said = engine()([[5, 6, 7]], 4)  # neither is the engine's concern
        assert (said is None) == bool(fails) == bool(failures)
        assert {name: value for name, value in vars(generation).items() if name != "llm"} == before
        assert torch.equal(torch.get_rng_state(), drawn)
        assert llm.awake == set()  # it would hold memory that training needs
    params = llm.asked[-1][1]
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (1, 0, 1, 0, 0)
    assert (params.repetition_penalty, params.logprobs) == (1, None)
    assert not hasattr(params, "seed") and not hasattr(params, "structured_outputs")


def test_what_it_says_is_checked(vllm, tokenizer, start, tmp_path, monkeypatch):
    trainer = online(tokenizer, start, tmp_path)
    for read, said in (
        ([[5, 6]], [[1, 2]]),
        ([[5, 6, 7]], [[]]),
        ([[5, 6, 7]], [[1] * 9]),
        ([[5, 6, 7]], [[1], [2]]),
    ):
        monkeypatch.setattr(
            trainer.vllm_generation, "generate", lambda r=read, s=said, *args, **kwargs: (r, s, None, None)
        )
        engine, failures = asks(trainer, trainer.vllm_generation)
        assert engine()([[5, 6, 7]], 4) is None and len(failures) == 1
        assert engine() is None  # it is not asked again


def test_a_failing_engine_is_told_once_and_the_policy_answers_itself(vllm, tokenizer, start, tmp_path, caplog):
    def breaks(trainer):
        Engine.made[-1].fails = RuntimeError("CUDA error")

    with caplog.at_level(logging.WARNING, "alignguard"):
        failing, run_failing, engine = run(tokenizer, start, tmp_path / "engine", "trainer", before=breaks)
    own, run_own, _ = run(tokenizer, start, tmp_path / "own", None)
    assert records(failing) == records(own) and same(run_failing, run_own)
    told = [record.getMessage() for record in caplog.records if "engine" in record.getMessage()]
    assert told == [
        "AlignGuard: the trainer's vLLM engine, in whose place the policy answers from here on, failed and training goes on "
        "(RuntimeError: CUDA error)"
    ]
    assert len(engine.greedy) == 1  # of three audits


def test_sampled_probes_stay_with_our_own_generation(vllm, tokenizer, start, tmp_path):
    probes = [replace(probe, sample=2) if probe.judge == "toxicity" else probe for probe in tiny_probes()]
    options = {"probes": probes}
    with_it, _, engine = run(tokenizer, start, tmp_path / "engine", "trainer", options=options)
    own, _, _ = run(tokenizer, start, tmp_path / "own", None, options=options)
    assert records(with_it) == records(own)
    sampled = next(Chat(tokenizer).prompt_ids(probe.messages) for probe in probes if probe.sample)
    asked = [prompt[: len(sampled)] for prompts in engine.greedy for prompt in prompts]
    assert asked and sampled not in asked


def test_adapters_leave_their_base_as_it_was(vllm, tokenizer, start, tmp_path, monkeypatch):
    """TRL merges them to synchronise, which rounds, and leaves them merged where it fails between."""
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trainer = online(tokenizer, start, tmp_path, peft_config=lora)
    model, llm = trainer.model, Engine.made[-1]
    chat, before = Chat(tokenizer), {name: p.detach().clone() for name, p in model.named_parameters()}
    prompts = [chat.prompt_ids(probe.messages) for probe in tiny_probes()]

    def unmoved():
        names = dict(model.named_parameters())
        merged = [module for module in model.modules() if getattr(module, "merged", False)]
        return not merged and all(torch.equal(p, before[name]) for name, p in names.items())

    engine, failures = asks(trainer, trainer.vllm_generation)
    with observing(model):
        own = answer_all(model, prompts, [False] * len(prompts), chat, TokenBudget(12, 20))
        assert answer_all(model, prompts, [False] * len(prompts), chat, TokenBudget(12, 20), ask=engine()) == own
    assert not failures and unmoved()
    loaded = llm.load_weights

    def load(weights):
        if llm.loads > 30:
            raise RuntimeError("half way")
        loaded(weights)

    monkeypatch.setattr(llm, "load_weights", load)
    assert engine()(prompts, 4) is None and len(failures) == 1 and unmoved()


def test_the_trainer_gives_its_engine_its_own_weights_before_it_generates_again(vllm, tokenizer, start, tmp_path):
    trainer = online(tokenizer, start, tmp_path)
    trainer._last_loaded_step = 7
    asks(trainer, trainer.vllm_generation)[0]()([[5, 6, 7]], 4)
    assert trainer._last_loaded_step == -1


@pytest.mark.slow
def test_each_process_asks_its_own_engine_and_one_may_fail(tokenizer, start, tmp_path):
    shutil.copytree(start, tmp_path / "start")
    for mode in ("own", "engine", "fails"):
        end(processes.start(mode, tmp_path / mode, 2, "engine_run.py"))
    own, *others = ([found(tmp_path / mode, rank) for rank in (0, 1)] for mode in ("own", "engine", "fails"))
    for runs in others:
        for one, other in zip(own, runs, strict=True):
            assert one["metrics"] == other["metrics"] and one["said"] == other["said"]
    asked = [[run["asked"] for run in runs] for runs in (own, *others)]
    assert asked[0] == [[], []] and all(asked[1]) and len(asked[1][1]) > len(asked[2][1]) == 1
    told = end(processes.start("split", tmp_path / "split", 2, "engine_run.py"), code=1)
    assert "which vllm_tensor_parallel_size=2 does not allow" in told


# before step 1 ------------------------------------------------------------------------------------------------------


def error(trainer, callback):
    trainer.add_callback(callback)
    with pytest.raises(AlignGuardError) as raised:
        trainer.train()
    assert trainer.state.global_step == 0
    return str(raised.value)


def test_a_trainer_without_such_an_engine_is_an_error(tokenizer, start, tmp_path):
    plain = online(tokenizer, start, tmp_path, use_vllm=False)
    told = error(plain, guard(plain, engine="trainer"))
    assert "this GRPOTrainer does not" in told and "use_vllm=True" in told
    plain = online(tokenizer, start, tmp_path, use_vllm=False)
    assert "this GRPOTrainer does not" in error(plain, guard(engine="trainer"))
    with pytest.raises(
        AlignGuardError, match=r"trainer.add_callback\(AlignGuardCallback\(trainer, engine='trainer'\)\)"
    ):
        find_engine("trainer", None, None)  # in a loop that is none of the trainer's


def test_the_engine_is_that_of_the_trainer_that_trains(vllm, tokenizer, start, tmp_path):
    """Which need not be given, and may be another than the one that was."""
    online(tokenizer, start, tmp_path / "first", [guard(engine="trainer")]).train()
    assert Engine.made[-1].greedy
    given = online(tokenizer, start, tmp_path / "given")
    callback, mine = guard(given, engine="trainer"), Engine.made[-1]
    second = online(tokenizer, start, tmp_path / "second")
    second.add_callback(callback)
    second.train()
    assert Engine.made[-1].greedy and not mine.greedy


def test_another_name_is_an_error_at_once():
    with pytest.raises(AlignGuardError, match="engine='vllm' is none; take 'trainer'"):
        AlignGuardCallback(engine="vllm")


def test_an_engine_that_reads_too_little_is_an_error(vllm, tokenizer, start, tmp_path):
    trainer = online(tokenizer, start, tmp_path, vllm_max_model_length=60)
    told = error(trainer, guard(trainer, engine="trainer", tokens=TokenBudget(answer=8, trace=100)))
    assert "the trainer's vLLM engine reads 60 tokens, and prompt, trace and answer may take" in told
    enough = {"vllm_max_model_length": int(told.partition("may take ")[2].split()[0])}
    options = {"tokens": TokenBudget(answer=8, trace=100)}
    assert run(tokenizer, start, tmp_path / "fits", "trainer", options=options, **enough)[2].greedy


def test_adapters_on_a_quantized_base_are_refused(vllm, tokenizer, start, tmp_path):
    trainer = online(tokenizer, start, tmp_path, peft_config=LoraConfig(r=4, target_modules=["q_proj"]))
    layer = next(module for module in trainer.model.modules() if hasattr(module, "base_layer"))
    layer.base_layer.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    context = SimpleNamespace(asking=SimpleNamespace(ranks=Ranks()), model=trainer.model)
    with pytest.raises(AlignGuardError, match="a quantized base would not come back the same"):
        find_engine("trainer", trainer, context)


def test_an_older_trl_is_refused(vllm, tokenizer, start, tmp_path, monkeypatch):
    trainer = online(tokenizer, start, tmp_path)
    monkeypatch.setattr("alignguard.trainer.engine.version", lambda name: "1.9.2")
    assert "needs a TRL of 1.16 or newer and finds 1.9.2 here" in error(trainer, guard(trainer, engine="trainer"))


@pytest.mark.parametrize(
    "ranks, engine, told",
    [
        (Ranks(size=2, sharded=True), {}, "not for sharded weights"),
        (Ranks(size=2), {"mode": "server"}, "vllm_mode='server' on 2 processes does not allow"),
        (Ranks(size=2), {"tensor_parallel_size": 2}, "vllm_tensor_parallel_size=2 does not allow"),
        (
            Ranks(),
            {"sync_weights": None},
            "the vLLM engine of TRL .* has no sync_weights as it is known here",
        ),
        (Ranks(), {"model": torch.nn.Linear(1, 1)}, "generates for another model"),
    ],
)
def test_what_cannot_be_asked_is_refused(vllm, tokenizer, start, tmp_path, ranks, engine, told):
    trainer = online(tokenizer, start, tmp_path)
    own = trainer.vllm_generation
    changed = {name: getattr(own, name) for name in (*vars(own), "sync_weights", "generate")} | engine
    trainer.vllm_generation = SimpleNamespace(**{name: value for name, value in changed.items() if value is not None})
    # min_p and the like may be None, and are there all the same
    for name in vars(own):
        vars(trainer.vllm_generation).setdefault(name, None)
    context = SimpleNamespace(asking=SimpleNamespace(ranks=ranks), model=trainer.model)
    with pytest.raises(AlignGuardError, match=told):
        find_engine("trainer", trainer, context)


def test_trl_is_as_we_know_it(vllm, tokenizer, start, tmp_path):
    """Where TRL changes what is used here, this fails, and `trainer/engine.py` is to be looked at."""
    assert list(inspect.signature(VLLMGeneration.sync_weights).parameters) == ["self"]
    assert list(inspect.signature(VLLMGeneration.generate).parameters) == [
        *("self", "prompts", "images", "num_generations", "profiler")
    ]
    sampling = {"repetition_penalty", "temperature", "top_p", "top_k", "min_p", "logprobs", "generation_kwargs"}
    sampling |= {"max_completion_length", "structured_outputs_regex"}
    known = {"self", "model", "accelerator", "processing_class", "mode", "tensor_parallel_size", "max_model_length"}
    known |= {"gpu_memory_utilization", "max_num_seqs", "enable_sleep_mode", "model_impl", "trust_remote_code"}
    known |= {"server_base_url", "server_host", "server_port", "server_timeout", "group_port"}
    # a setting that is new may make an answer another than the greedy one
    assert set(inspect.signature(VLLMGeneration.__init__).parameters) == sampling | known
    # what it reads of itself when it generates
    read = inspect.getsource(VLLMGeneration.generate)
    assert all(f"self.{name}" in read for name in sampling)
    trainer = online(tokenizer, start, tmp_path, vllm_enable_sleep_mode=True)
    assert unknown_in(trainer.vllm_generation) == "" and trainer._last_loaded_step == -1
    del trainer.vllm_generation._llm_weights_sleeping
    assert "sleep mode" in unknown_in(trainer.vllm_generation)
