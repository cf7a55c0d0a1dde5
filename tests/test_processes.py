"""What a process knows of itself."""

import subprocess
import sys
import time


def test_age_is_no_longer_than_the_process_has_run():
    began = time.monotonic()
    command = [sys.executable, "-c", "import time; from viny.processes import age; time.sleep(0.05); print(age())"]
    age = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    tick = 0.01  # start times are known to the clock tick
    assert 0.05 - tick <= age <= time.monotonic() - began + tick
