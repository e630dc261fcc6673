"""The relays that are compared, each started from its config in configs/."""
import os
import re
import shutil
from pathlib import Path

from . import procs

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"


class Relay:
    """One kind of relay: how to find it, start it, and what its backend expects."""

    def __init__(self, name, program, version_command, arguments, template=None, proxy="v2", bulk_apart=False):
        self.name, self.program, self.proxy, self.bulk_apart = name, program, proxy, bulk_apart
        self._version_command, self._arguments, self._template = version_command, arguments, template

    def missing(self):
        """Why it can't take part, or None."""
        return None if self.program and os.access(self.program, os.X_OK) else "not installed"

    def version(self):
        if not self._version_command:
            return "this repository"
        command, pattern = self._version_command
        return procs.first_line([str(self.program), *command], pattern) or "unknown"

    def start(self, place, cpus, environment=None):
        return Running(self, place, cpus, environment)


class Running:
    """A started relay. `place` says where it listens, what its backend is, and where its files may be."""

    def __init__(self, relay, place, cpus, environment):
        self.relay, self.name, self.listen = relay, relay.name, place["listen"]
        self.listen_bulk = place["listen_bulk"] if relay.bulk_apart else self.listen
        config = None
        if relay._template:
            config = Path(place["directory"]) / f"{relay.name}-{procs.split(self.listen)[1]}.conf"
            config.write_text(fill((CONFIGS / relay._template).read_text(), place))
        words = {"config": config, **place}
        command = [relay.program, *(a.format(**words) for a in relay._arguments)]
        log = Path(place["directory"]) / f"{relay.name}.log"
        with open(log, "wb") as output:
            self.process = procs.start(command, cpus, stdin=-3, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        try:
            procs.wait_for_port(self.listen, self.process, relay.name)
        except procs.Failure as failure:
            tail = log.read_text(errors="replace").splitlines()[-5:]
            procs.stop(self.process)
            raise procs.Failure("\n  ".join([str(failure), *tail])) from failure
        self.pid = self.process.pid

    def stop(self):
        procs.stop(self.process)


def fill(template, place):
    load = f"load_module {STREAM_MODULE};" if os.path.exists(STREAM_MODULE) else ""
    words = {
        "LISTEN": place["listen"], "LISTEN_PORT": procs.split(place["listen"])[1], "BACKEND": place["backend"],
        "LISTEN_BULK": place["listen_bulk"],
        "DIRECTORY": place["directory"], "LOAD_STREAM": load,
    }
    return re.sub(r"@([A-Z_]+)@", lambda found: str(words[found.group(1)]), template)


class Nginx(Relay):
    def missing(self):
        why = super().missing()
        if why is None and not os.path.exists(STREAM_MODULE):
            built_in = procs.first_line([self.program, "-V"], r"--with-stream(?=[ '\"]|$)")
            why = None if built_in else "has no stream module (Debian: libnginx-mod-stream)"
        return why


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def all_relays(tools, pipelined):
    """In the order in which rounds run them. HAProxy is what the others are compared with."""
    return [
        Relay("haproxy", find("haproxy"), (["-v"], r"version \S+"), ["-db", "-f", "{config}"], "haproxy.cfg", bulk_apart=True),
        Relay("pipelined", pipelined, (["--version"], r".+"), ["run", "{config}"], "pipelined.pipeline"),
        Relay("stages", pipelined, (["--version"], r".+"), ["run", "{config}"], "stages.pipeline"),
        Nginx("nginx", find("nginx"), (["-v"], r"nginx/\S+"), ["-c", "{config}", "-p", "{directory}"], "nginx.conf", "v1"),
        Relay("floor", tools / "floor", None, ["{listen}", "{backend}"]),
    ]
