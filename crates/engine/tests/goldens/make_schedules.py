"""Learning rates of every schedule family, as transformers makes them.

Usage: python make_schedules.py > schedules.json      (transformers 5.23, torch 2.15)
Each case holds the learning rate of steps 0 .. total+3 (the last four lie beyond the end of the run).
"""
import json
import torch
from transformers.optimization import get_scheduler

CASES = [
    ("linear", 2e-4, 0, 7, {}),
    ("linear", 2e-4, 3, 20, {}),
    ("linear", 1e-3, 10, 5, {}),
    ("cosine", 5e-4, 2, 10, {}),
    ("cosine", 1.0, 0, 13, {"num_cycles": 1.25}),
    ("cosine_with_restarts", 3e-4, 2, 17, {"num_cycles": 3}),
    ("cosine_with_restarts", 3e-4, 0, 9, {}),
    ("polynomial", 5e-5, 4, 15, {}),
    ("polynomial", 1e-2, 2, 12, {"lr_end": 1e-4, "power": 2.5}),
    ("constant", 1e-5, 0, 6, {}),
    ("constant_with_warmup", 1e-5, 4, 8, {}),
    ("inverse_sqrt", 1e-3, 4, 12, {}),
    ("inverse_sqrt", 1e-3, 0, 12, {}),
    ("inverse_sqrt", 1e-3, 3, 12, {"timescale": 50}),
    ("cosine_with_min_lr", 1e-3, 3, 14, {"min_lr": 1e-4}),
    ("cosine_with_min_lr", 1e-3, 3, 14, {"min_lr_rate": 0.3, "num_cycles": 1.5}),
    ("cosine_warmup_with_min_lr", 1e-3, 4, 14, {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", 1e-3, 4, 14, {"min_lr": 2e-4, "warmup_lr_rate": 0.25}),
    ("cosine_warmup_with_min_lr", 1e-3, 1, 6, {"min_lr_rate": 0.0, "warmup_lr_rate": 0.5}),
    ("warmup_stable_decay", 1e-3, 4, 20, {"num_decay_steps": 6}),
    ("warmup_stable_decay", 1e-3, 4, 20, {"num_decay_steps": 6, "min_lr_ratio": 0.1, "decay_type": "linear"}),
    ("warmup_stable_decay", 1e-3, 5, 20,
     {"num_decay_steps": 7, "warmup_type": "cosine", "decay_type": "1-sqrt", "min_lr_ratio": 0.05}),
    ("warmup_stable_decay", 1e-3, 5, 20, {"num_decay_steps": 3, "num_stable_steps": 6, "warmup_type": "1-sqrt"}),
    ("warmup_stable_decay", 1e-3, 6, 10, {"num_decay_steps": 8, "num_cycles": 0.4}),
]


def rates(name, lr, warmup, total, kwargs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = get_scheduler(name, optimizer, warmup, total, dict(kwargs))
    values = []
    for _ in range(total + 4):
        values.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return values


print(json.dumps([{"lr_scheduler_type": n, "learning_rate": lr, "warmup_steps": w, "total_steps": t,
                   "lr_scheduler_kwargs": k, "rates": rates(n, lr, w, t, k)} for n, lr, w, t, k in CASES]))
