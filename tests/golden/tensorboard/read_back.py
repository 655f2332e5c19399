"""Reads a folder of event files with TensorBoard's own reader: every step of a tag from 1 on, once.

    python read_back.py FOLDER TAG STEPS
"""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder, tag, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
events = EventAccumulator(folder, size_guidance={"scalars": 0})
events.Reload()
found = [event.step for event in events.Scalars(tag)]
assert found == list(range(1, steps + 1)), found
print(f"{tag}: {len(found)} steps; {sorted(events.Tags()['scalars'])}, images {events.Tags()['images']}")
