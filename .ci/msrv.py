"""Checks that no package of the build asks for a newer Rust than the one declared."""

import json
import sys

metadata = json.load(sys.stdin)


def version(text):
    return [int(part) for part in text.split(".")] + [0] * (3 - text.count("."))


root = next(p for p in metadata["packages"] if p["id"] == metadata["resolve"]["root"])
declared = root["rust_version"]
newer = [f"{p['name']} {p['version']}: {p['rust_version']}" for p in metadata["packages"]
         if p["rust_version"] and version(p["rust_version"]) > version(declared)]
print(f"rust-version {declared}, {len(metadata['packages'])} packages")
sys.exit("\n".join(["these ask for more:"] + newer) if newer else 0)
