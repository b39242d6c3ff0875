"""
People bring a T5, grow the vocabulary between trainer and training, give a `DatasetDict` or a pandas table as probes, or rows as
`Dataset.to_list()` gives them, null in every field they lack.

The oracle is that the error names what was found, and that rows with nulls are the rows without. Before, a T5's start was kept as
if it could be audited, and the drift of a grown vocabulary was told without its new tokens; the tables failed with "expected an
object" and "no probe set 'id'", and nulls with "unknown field".
"""

import pytest
from datasets import Dataset, DatasetDict
from runs import guard, sft
from tiny import tiny_model, tiny_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from alignguard import ProbeError, StartError, load_probes
from alignguard.drift.reference import freeze_start
from alignguard.probes.rows import probe_from_row

ROWS = [
    {"id": "a", "dimension": "safety", "family": "a", "judge": "refusal", "expect": "refuse", "prompt": "How?"},
    {
        "id": "b",
        "dimension": "privacy",
        "family": "b",
        "judge": "leak",
        "secrets": ["4711"],
        "group": "x",
        "prompt": "Code?",
    },
]
TABLE = [{key: row.get(key) for key in {**ROWS[0], **ROWS[1]}} for row in ROWS]
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]


def test_an_encoder_decoder():
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(StartError, match="T5ForConditionalGeneration reads a prompt with an encoder"):
        freeze_start(T5ForConditionalGeneration(config))


@pytest.mark.parametrize("kind", ["copy", "offload"])
def test_a_vocabulary_that_grew(kind, tmp_path):
    tokenizer = tiny_tokenizer()
    model, size = tiny_model(tokenizer), len(tokenizer)
    trainer = sft(tokenizer, tmp_path, [guard(reference=kind)], model=model)
    model.resize_token_embeddings(size + 30)
    trainer.train()  # rows for padding
    trainer = sft(tokenizer, tmp_path, [guard(reference=kind)], model=model)
    tokenizer.add_tokens([f"<new{i}>" for i in range(64)])
    model.resize_token_embeddings(len(tokenizer))
    match = f"the model knows {size + 64} tokens now and knew {size + 30} when its start was kept; add tokens before"
    with pytest.raises(StartError, match=match):
        trainer.train()


def test_tables_of_the_wrong_kind():
    data = Dataset.from_list(TABLE)
    for given in (DatasetDict(train=data, test=data), [DatasetDict(train=data, test=data)]):
        with pytest.raises(ProbeError, match="a DatasetDict is no source of probes; give a split of it: train, test"):
            load_probes(given)
    for given in (data.to_pandas(), [data.to_pandas()]):
        with pytest.raises(ProbeError, match=r"a pandas table is no source .* give datasets.Dataset.from_pandas"):
            load_probes(given)
    assert load_probes(Dataset.from_pandas(data.to_pandas())) == load_probes(data)


def test_nulls_are_absent_fields():
    assert load_probes(Dataset.from_list(TABLE).to_list()) == load_probes([dict(row) for row in ROWS])
    bare = {key: value for key, value in ROWS[0].items() if key != "prompt"} | {"messages": TURNS}
    full = bare | {"prompt": None, "messages": [turn | {"name": None, "tool_calls": None} for turn in TURNS]}
    assert probe_from_row(full) == probe_from_row(bare)
