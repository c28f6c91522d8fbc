"""`asyncval` as it is, but with an evaluation process that needs no torch.

    python -m tests.reliability.light watch --ckpts_dir ...

Everything but the numbers is real: processes, messages, pins, ledger and reporters. With
LIGHT_DEAF=1 every event of the file system is dropped; LIGHT_START_SECONDS is how long the
evaluation process may take to start again.
"""

import os
import subprocess
import sys
from typing import Any

from asyncval import cli, daemon
from asyncval.alarm import Alarm


def replace_worker() -> None:
    """Start the light evaluation process wherever the daemon starts the real one."""
    real: Any = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        light = "tests.reliability.light_worker"
        return real([light if word == "asyncval.worker" else word for word in command], **options)

    vars(subprocess)["Popen"] = start


if __name__ == "__main__":
    replace_worker()
    if os.environ.get("LIGHT_DEAF"):
        vars_of_alarm: Any = Alarm
        vars_of_alarm.on_any_event = lambda self, event: None
    daemon.START_SECONDS = float(os.environ.get("LIGHT_START_SECONDS", daemon.START_SECONDS))
    sys.exit(cli.main())
