"""Real clients against the web server: curl, redbot and slowhttptest.

Asks the release build of `web` for what they ask for, and fails where one of them is
not content. The first argument is the redbot program.
"""

import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

REDBOT = sys.argv[1]
WEB = "target/release/web"
PAGE = '<!doctype html><html lang="en"><title>A page</title><link rel="stylesheet" href="a.css"><p>Hello'
DIGITS = bytes(48 + n % 10 for n in range(100_000))


def site(folder):
    """Files, and the configuration that serves them."""
    www = folder / "www"
    www.mkdir()
    (www / "index.html").write_text(PAGE)
    style = "p { color: black }\n" * 100
    (www / "a.css").write_text(style)
    (www / "a.css.gz").write_bytes(gzip.compress(style.encode()))
    (www / "digits.bin").write_bytes(DIGITS)
    with (www / "large.bin").open("wb") as large:
        large.truncate(1 << 30)
    (folder / "secret").write_text("secret")
    config = folder / "web.conf"
    config.write_text("host default www\nparameter timeout 5\n")
    return config


def curl(*args):
    """Returns the standard output of curl."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "20", *args]
    return subprocess.run(command, check=False, capture_output=True).stdout


def status(*args):
    return curl("--output", "/dev/null", "--write-out", "%{http_code}", *args).decode()


def check(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found!r} and not {wanted!r}")
    print(f"  {what}")


def curls(base, folder):
    """Checks the usual uses of curl."""
    check("a page", curl(base).decode(), PAGE)
    check("a range", curl("-r", "5-9", f"{base}/digits.bin"), b"56789")
    check("the end of a file", curl("-r", "-3", f"{base}/digits.bin"), DIGITS[-3:])
    check("a range beyond the end", status("-r", "100000-", f"{base}/digits.bin"), "416")
    part = folder / "part"
    part.write_bytes(DIGITS[:777])
    curl("-C", "-", "-o", str(part), f"{base}/digits.bin")
    check("a download that goes on", part.read_bytes(), DIGITS)
    tag = str(folder / "etag")
    curl("--etag-save", tag, "-o", "/dev/null", f"{base}/a.css")
    check("an entity tag that holds", status("--etag-compare", tag, f"{base}/a.css"), "304")
    curl("-R", "-o", str(folder / "copy"), f"{base}/a.css")
    check("not changed since", status("-z", str(folder / "copy"), f"{base}/a.css"), "304")
    check("HEAD", b"Content-Length: 100000" in curl("--head", f"{base}/digits.bin"), True)
    compressed = curl("-H", "Accept-Encoding: gzip", f"{base}/a.css")
    check("compressed", gzip.decompress(compressed), (folder / "www/a.css").read_bytes())
    kept = curl("--write-out", "%{num_connects}", "-o", "/dev/null", f"{base}/a.css", "-o", "/dev/null", f"{base}/a.css")
    check("one connection for two requests", kept, b"10")
    check("HTTP/1.0", curl("--http1.0", base).decode(), PAGE)
    check("an unwanted body", status("--data-binary", f"@{folder}/copy", base), "405")
    for path in ["../secret", "%2e%2e/secret", "..%2fsecret", "a/../../secret", "%252e%252e/secret"]:
        found = curl("--path-as-is", f"{base}/{path}")
        check(f"nothing outside the root: {path}", b"secret" in found.replace(path.encode(), b""), False)


def redbot(base):
    """Checks the header fields, and what they promise, with redbot."""
    for path in ["", "a.css", "digits.bin", "missing"]:
        said = subprocess.run([REDBOT, "-o", "har", f"{base}/{path}"], check=True, capture_output=True).stdout
        notes = [note for entry in json.loads(said)["log"]["entries"] for note in entry["_red_messages"]]
        bad = [note["summary"] for note in notes if note["level"] == "BAD"]
        check(f"redbot, /{path}: {len(notes)} notes", bad, [])


def slow(base, mode, path):
    """An attack of slowhttptest, which asks meanwhile whether the service is there."""
    command = ["slowhttptest", mode, "-c", "600", "-r", "300", "-i", "1", "-l", "8", "-p", "2", "-u", f"{base}/{path}"]
    attack = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    answers = 0
    while attack.poll() is None:
        page = curl("--max-time", "5", base).decode()
        if page != PAGE:
            sys.exit(f"slowhttptest {mode}: a page beside it is {page!r}")
        answers += 1
        try:
            attack.wait(0.1)
        except subprocess.TimeoutExpired:
            pass
    said = attack.stdout.read().decode(errors="replace")
    verdicts = [line for line in said.splitlines() if "service available" in line]
    if not verdicts or any("YES" not in line for line in verdicts):
        sys.exit(f"slowhttptest {mode} found the service not available:\n{said}")
    print(f"  slowhttptest {mode}: available throughout, and {answers} pages beside it")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        command = [WEB, "--listen", "127.0.0.1:0", "--config", str(site(folder))]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            base = "http://" + server.stdout.readline().strip().removeprefix("listening on ")
            curls(base, folder)
            redbot(base)
            for mode, path in [("-H", ""), ("-B", ""), ("-R", "digits.bin"), ("-X", "large.bin")]:
                slow(base, mode, path)
        finally:
            server.terminate()
            code = server.wait(20)
        check("it stops", code, 0)


main()
