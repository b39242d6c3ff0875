"""Turn an instruct model into a reasoner by SFT on traces, and watch what that does to its alignment.

    python recipes/sft.py --output_dir runs/sft
    python recipes/sft.py --output_dir runs/sft --model_name_or_path Qwen/Qwen2.5-1.5B-Instruct --use_peft
    python recipes/sft.py --output_dir runs/sft --dataset_name open-r1/Mixture-of-Thoughts --dataset_config math

All options of TRL's SFTConfig, ModelConfig and ScriptArguments work. Without --model_name_or_path the embedded
SmolLM2-135M-Instruct is trained, without --dataset_name on arithmetic with traces.

To keep what the model was: --max_kl 0.05 holds it within a drift budget, --mix_anchors 200 mixes alignment rows in, --use_peft
or a lower --learning_rate moves it less.
"""

from auditing import parse, run
from datasets import load_dataset
from mixing import mixed_in
from tasks import reasoning_rows
from trl import SFTConfig, SFTTrainer, get_peft_config

from alignguard import AlignGuardCallback


def main() -> None:
    script, training, model, audits = parse(SFTConfig, learning_rate=2e-5)
    if script.dataset_name:
        dataset = load_dataset(script.dataset_name, script.dataset_config)[script.dataset_train_split]
    else:
        dataset = reasoning_rows(audits.train_rows)
    if audits.mix_anchors:
        dataset = mixed_in(dataset, model.model_name_or_path, audits.mix_anchors, revision=model.model_revision)

    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=dataset,
        peft_config=get_peft_config(model),
        callbacks=[AlignGuardCallback(**audits.settings())],
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)


if __name__ == "__main__":
    run(main)
