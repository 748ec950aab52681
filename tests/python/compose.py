"""Is docker-compose.yml whole? Its images cannot be pulled everywhere, its structure can be read."""

import pathlib
import re
import sys

import yaml

root = pathlib.Path(__file__).parents[2]
services = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]
wrong = []


def check(holds, what):
    if not holds:
        wrong.append(what)


for name, service in services.items():
    image = service.get("image", "")
    check(re.search(r":\d+\.\d+", image), f"{name}: the image {image} has no pinned tag")
    check(service.get("healthcheck", {}).get("test"), f"{name} has no health check")
    check(service.get("profiles"), f"{name} has no profile")
    for port in service.get("ports", []):
        check(
            re.fullmatch(r"127\.0\.0\.1:\$\{CASEBOOK_\w+:-\d+\}:\d+", port),
            f"{name}: port {port} is not bound to this machine or not from the environment",
        )
    if build := service.get("build"):
        file = root / build["context"] / build["dockerfile"]
        check(file.exists(), f"{name}: there is no {file}")
        text = file.read_text() if file.exists() else ""
        check(re.search(r"^USER (?!root)", text, re.M), f"{name}: {file} runs as root")
for expected in ("s3", "azure", "odbc", "snowflake", "casebook"):
    check(
        any(expected in s["profiles"] for s in services.values()), f"no profile {expected}"
    )
print("\n".join(wrong) or f"docker-compose.yml: {len(services)} services, all whole")
sys.exit(bool(wrong))
