"""Write the golden files that do not exist yet: `python tests/golden/make.py VERSION`. Existing ones are never touched.

Add the printed lines to SHA256SUMS. A golden file whose bytes change, or that is missing, fails the tests: it stands
for what older versions have sent.
"""

import hashlib
import sys
from pathlib import Path

from contents import GOLDEN

from fedsparse import codec

HERE = Path(__file__).parent


def main(version: str) -> None:
    for name, make in GOLDEN[version].items():
        path = HERE / version / f"{name}.fspc"
        if path.exists():
            continue
        golden = make()
        schema = golden.schema if golden.by_schema else None
        data = codec.encode(
            golden.payload,
            values=golden.values,
            known=golden.known,
            reference=golden.reference,
            seed=golden.seed,
            schema=schema,
            ids=golden.ids,
        )
        if ".".join(map(str, codec.header(data).version)) != version:
            sys.exit(f"the encoder writes {codec.header(data).version}, not {version}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        print(f"{hashlib.sha256(data).hexdigest()}  {version}/{path.name}")


if __name__ == "__main__":
    main(sys.argv[1])
