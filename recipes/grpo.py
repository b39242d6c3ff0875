"""Turn an instruct model into a reasoner by GRPO, rewarded for right answers and for thinking first, and watch its alignment.

    python recipes/grpo.py --output_dir runs/grpo
    python recipes/grpo.py --output_dir runs/grpo --model_name_or_path Qwen/Qwen2.5-1.5B-Instruct --use_peft --beta 0.04

All options of TRL's GRPOConfig, ModelConfig and ScriptArguments work. Without --model_name_or_path the embedded
SmolLM2-135M-Instruct is trained, without --dataset_name on sums that reasoning-gym makes and checks. A dataset of your own
needs the columns `prompt` (chat turns) and `answer` (a number).
"""

from auditing import parse, run
from datasets import load_dataset
from tasks import reasoning_prompts, right_answer, thinks_first
from trl import GRPOConfig, GRPOTrainer, get_peft_config

from alignguard import AlignGuardCallback


def main() -> None:
    script, training, model, audits = parse(
        GRPOConfig, learning_rate=1e-6, num_generations=8, max_completion_length=64, beta=0.0
    )
    if script.dataset_name:
        dataset = load_dataset(script.dataset_name, script.dataset_config)[script.dataset_train_split]
    else:
        dataset = reasoning_prompts(audits.train_rows)

    trainer = GRPOTrainer(
        model=model.model_name_or_path,
        reward_funcs=[right_answer, thinks_first],
        args=training,
        train_dataset=dataset,
        peft_config=get_peft_config(model),
        callbacks=[AlignGuardCallback(**audits.settings())],
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)


if __name__ == "__main__":
    run(main)
