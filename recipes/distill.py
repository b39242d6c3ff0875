"""Turn an instruct model into a reasoner by on-policy distillation from one, and watch what that does to its alignment.

    python recipes/distill.py --output_dir runs/distill
    python recipes/distill.py --output_dir runs/distill --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct \\
        --teacher_model_name_or_path Qwen/Qwen3-4B --use_peft

All options of TRL's DistillationConfig, ModelConfig and ScriptArguments work. Without --model_name_or_path the embedded
SmolLM2-135M-Instruct is the student, without --teacher_model_name_or_path the same model trained by sft.py is its teacher,
without --dataset_name it is asked sums. A dataset of your own needs the column `prompt` (chat turns).
"""

from auditing import parse, run
from datasets import load_dataset
from embedded import trained_teacher
from tasks import reasoning_rows
from trl import DistillationConfig, DistillationTrainer, get_peft_config

from alignguard import AlignGuardCallback


def main() -> None:
    script, training, model, audits = parse(DistillationConfig, learning_rate=2e-5, beta=0.0, max_completion_length=48)
    if script.dataset_name:
        dataset = load_dataset(script.dataset_name, script.dataset_config)[script.dataset_train_split]
    else:
        dataset = reasoning_rows(audits.train_rows)
    training.teacher_model_init_kwargs = {"dtype": model.dtype, "revision": training.teacher_model_revision}

    trainer = DistillationTrainer(
        model=model.model_name_or_path,
        teacher_model=training.teacher_model_name_or_path or trained_teacher(),
        args=training,
        train_dataset=dataset.select_columns("prompt"),
        peft_config=get_peft_config(model),
        callbacks=[AlignGuardCallback(**audits.settings())],
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)


if __name__ == "__main__":
    run(main)
