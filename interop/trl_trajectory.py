"""TRL's losses on the quickstart's data, to hold `llm-foundry train` against.

    cargo xtask golden trl_trajectory PYTHON SmolLM2-135M-Instruct.Q4_1.gguf

Writes crates/llm-foundry/tests/fixtures/trl_quickstart.json: loss, gradient norm and learning rate of 10 optimiser
steps. The model is the GGUF file dequantised to float32, because that is what llm-foundry makes of it; data, template,
packing, order, adapter and schedule are those of configs/sft/smollm2_quickstart.yaml with the overrides recorded in the
file. Needs torch, transformers, trl, peft, datasets and gguf; takes two minutes on two cores.
"""
import json
import sys
from pathlib import Path

import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

ROOT = Path(__file__).parent.parent
OUT = ROOT / "crates/llm-foundry/tests/fixtures/trl_quickstart.json"
SEED = 7
STEPS = 10
# What the test puts on the command line, and TRL gets below.
OVERRIDES = {
    "model.dtype": "float32",
    "data.max_length": 256,
    "data.eval": [],
    "lora.r": 8,
    "lora.lora_alpha": 16,
    "training.max_steps": STEPS,
    "training.per_device_train_batch_size": 1,
    "training.learning_rate": 5e-4,
    "training.lr_scheduler_type": "cosine",
    "training.warmup_steps": 2,
    "training.weight_decay": 0.01,
    "training.max_grad_norm": 1.0,
    "training.seed": SEED,
    "training.logging_steps": 1,
}


def plain_model(folder, name):
    """The dequantised weights in an ordinary model: transformers refuses to train one that it loaded from GGUF."""
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    config["rms_norm_eps"] = 1e-5  # GGUF keeps it as a float32
    model = LlamaForCausalLM._from_config(LlamaConfig(**config), dtype=torch.float32, attn_implementation="eager")
    model.load_state_dict(loaded.state_dict())
    return model


def trainer(gguf):
    """TRL's trainer with the settings of OVERRIDES."""
    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.chat_template = (ROOT / "datasets/quickstart/smollm2_chat.jinja").read_text()
    model = plain_model(folder, name)
    lines = (ROOT / "datasets/quickstart/train.jsonl").read_text().splitlines()
    data = Dataset.from_list([json.loads(line) for line in lines])
    config = SFTConfig(
        output_dir=str(ROOT / "target/trl_trajectory"),
        max_steps=STEPS,
        per_device_train_batch_size=OVERRIDES["training.per_device_train_batch_size"],
        max_length=OVERRIDES["data.max_length"],
        packing=True,
        assistant_only_loss=True,
        learning_rate=OVERRIDES["training.learning_rate"],
        lr_scheduler_type=OVERRIDES["training.lr_scheduler_type"],
        warmup_steps=OVERRIDES["training.warmup_steps"],
        weight_decay=OVERRIDES["training.weight_decay"],
        max_grad_norm=OVERRIDES["training.max_grad_norm"],
        seed=SEED,
        logging_steps=1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
    )
    lora = LoraConfig(
        r=OVERRIDES["lora.r"],
        lora_alpha=OVERRIDES["lora.lora_alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # The adapter's random numbers are the first that are drawn after this.
    torch.manual_seed(SEED)
    return SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, peft_config=lora)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sft = trainer(Path(sys.argv[1]).resolve())
    tokens, original = [], sft.training_step

    def step(model, inputs, *rest, **named):
        tokens.append(inputs["input_ids"][0].tolist())
        return original(model, inputs, *rest, **named)

    sft.training_step = step
    sft.train()
    keys = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy")
    log = [{key: entry[key] for key in keys} for entry in sft.state.log_history if "loss" in entry]
    for entry, row in zip(log, tokens, strict=True):
        entry["row_tokens"] = len(row)
    versions = {module.__name__: module.__version__ for module in (torch, transformers, trl, peft)}
    golden = {"made_by": "interop/trl_trajectory.py", "versions": versions, "overrides": OVERRIDES, "steps": log}
    OUT.write_text(json.dumps(golden, indent=1) + "\n")
    print(json.dumps(log))


if __name__ == "__main__":
    main()
