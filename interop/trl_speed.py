"""TRL + PEFT supervised fine-tuning on CPU, timed: what users run today.

    python interop/trl_speed.py --model MODEL_DIR --data alpaca_en_demo.json
        [--dtype bfloat16 --bf16 1] [--steps 6] [--len 1024] ...
Prints one line `RESULT {json}`: tokens per second after the first third of the steps, peak memory, losses.
"""
import argparse, json, os, resource, time
ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True); ap.add_argument("--data", required=True); ap.add_argument("--out", default="trl_out")
ap.add_argument("--dtype", default="bfloat16"); ap.add_argument("--bf16", type=int, default=1)
ap.add_argument("--packing", type=int, default=1); ap.add_argument("--gc", type=int, default=0)
ap.add_argument("--bs", type=int, default=1); ap.add_argument("--len", type=int, default=1024); ap.add_argument("--steps", type=int, default=6)
ap.add_argument("--full", type=int, default=0); ap.add_argument("--q4", type=int, default=0); ap.add_argument("--dq", type=int, default=0); ap.add_argument("--r", type=int, default=16)
a = ap.parse_args()
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer
rows = json.load(open(a.data))
ds = Dataset.from_list([{"prompt": [{"role": "user", "content": r["instruction"] + ("\n" + r["input"] if r["input"] else "")}],
                         "completion": [{"role": "assistant", "content": r["output"]}]} for r in rows])
tok = AutoTokenizer.from_pretrained(a.model)
kw = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=bool(a.dq), bnb_4bit_compute_dtype=getattr(torch, a.dtype))} if a.q4 else {}
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype), attn_implementation="sdpa", **kw)
def age():
    """Seconds since this process was started."""
    started = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(open("/proc/uptime").read().split()[0]) - started
class Clock(TrainerCallback):
    seconds, first = [], None
    def on_step_begin(self, *x, **k): self.t = time.perf_counter()
    def on_step_end(self, *x, **k):
        self.seconds.append(time.perf_counter() - self.t)
        self.first = self.first or age()
clock, tokens = Clock(), []
cfg = SFTConfig(output_dir=a.out, max_steps=a.steps, per_device_train_batch_size=a.bs, max_length=a.len,
                packing=bool(a.packing), bf16=bool(a.bf16),
                use_cpu=True, gradient_checkpointing=bool(a.gc), logging_steps=1, report_to=[], save_strategy="no", learning_rate=2e-4, seed=0)
peft = None if a.full else LoraConfig(r=a.r, lora_alpha=2 * a.r, target_modules="all-linear", task_type="CAUSAL_LM")
tr = SFTTrainer(model=model, args=cfg, train_dataset=ds, processing_class=tok, callbacks=[clock], peft_config=peft)
orig = tr.training_step
def step(m, inputs, *x, **k):
    mask = inputs.get("attention_mask"); tokens.append(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
    return orig(m, inputs, *x, **k)
tr.training_step = step
tr.train()
w = max(1, a.steps // 3)
print("RESULT", json.dumps(dict(vars(a), tokens_per_second=round(sum(tokens[w:]) / sum(clock.seconds[w:]), 1), tokens=tokens,
      start_seconds=round(clock.first - sum(clock.seconds[w:]) / len(clock.seconds[w:]), 2),
      peak_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, loss=[h["loss"] for h in tr.state.log_history if "loss" in h])))
