"""
The main job with no network but what it is given, and with secrets about: offline_run.py DIR TRACKERS (JSON).

Whatever connects to anything but a socket of this machine's own kind (AF_UNIX) is refused, and told of in DIR/network.json.
"""

import json
import socket
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
asked = []


def refuse(real):
    def connect(self, address, *more):
        if self.family == socket.AF_UNIX:
            return real(self, address, *more)
        asked.append([str(address), traceback.format_stack()[-6:]])
        raise OSError(f"no network: {address}")

    return connect


def no_names(host, *more, **also):
    asked.append([str(host), traceback.format_stack()[-6:]])
    raise OSError(f"no network: {host}")


socket.socket.connect, socket.socket.connect_ex = refuse(socket.socket.connect), refuse(socket.socket.connect_ex)
socket.getaddrinfo = socket.gethostbyname = no_names

from runs import guard, sft  # noqa: E402
from tiny import tiny_model, tiny_probes, tiny_tokenizer  # noqa: E402

from alignguard import DriftBudget, Schedule, StopRule  # noqa: E402


def main(output_dir, report_to):
    secret = {"api_key": "SECRET-config-4711", "custom": {"token": "SECRET-nested-4711"}}
    tokenizer = tiny_tokenizer()
    tokenizer.init_kwargs["token"] = "SECRET-tokenizer-4711"
    model = tiny_model(tokenizer, seed=1, **secret)
    settings = {
        "probes": [*tiny_probes(), *()],
        "schedule": Schedule(at=(1,), every=0, draw=2),
        "stop": StopRule(stop=False),
        "budget": DriftBudget(anchors=["Who was it?", "Name a colour of the sky."], batch=1, answer_tokens=4),
        "reference": "cache",
    }
    trainer = sft(
        tokenizer, output_dir, [guard(**settings)], model=model, report_to=report_to, run_name="offline", max_steps=2,
        hub_token="SECRET-args-4711", save_strategy="no",
    )  # fmt: skip
    try:
        trainer.train()
    finally:
        Path(output_dir, "network.json").write_text(json.dumps(asked))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
