"""The tests of `@dragonish/compre-face-sdk`, unmodified, against `gdrd serve`: dragonish.py GDRD STUDENT CHECKOUT.

CHECKOUT is its repository (https://github.com/LightAPIs/compre-face-sdk, tried at bfcb0e4, version 0.1.4) after `npm install`. Its tests
read address and keys from `test/env.json`, which is written there.
"""

import json
import os
import subprocess
import sys

from common import Server

program, student, checkout = sys.argv[1:]
with Server(program, student) as server:
    keys = dict.fromkeys(["recognition", "detection", "verify"], server.key)
    with open(os.path.join(checkout, "test", "env.json"), "w") as file:
        json.dump(dict(url=server.address, key=keys), file)
    sys.exit(subprocess.run(["npm", "test"], cwd=checkout).returncode)
