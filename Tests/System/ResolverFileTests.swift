import Foundation
import Glibc
import TestSupport
import Testing

private enum MountNamespaces {
    /// Why there can be none here; nil: there can.
    static let obstacle: String? = {
        guard geteuid() == 0, Child.find("unshare") != nil, Child.find("nsenter") != nil else { return "no root" }
        let child = try? Child("unshare", ["-m", "true"])
        return (try? child?.waitForExit()) == .code(0) ? nil : "no mount namespaces"
    }()
}

/// Names whose servers are those of /etc/resolv.conf, which may be anything on some host.
@Suite("Names by /etc/resolv.conf", .enabled(if: MountNamespaces.obstacle == nil, "needs root and mount namespaces"))
struct ResolverFileTests {
    /// A node that sees `list` as its /etc/resolv.conf.
    private struct Setup {
        let folder: TemporaryFolder
        let server: Server
        let dns: DNSServer
        let node: Node
        let entry: Place
        let admin: String

        private static let numbers = Counter(start: 1)

        init() throws {
            folder = try TemporaryFolder()
            let port = try FreePort.take()
            server = try Server("127.0.0.1", port: port) { socket in
                _ = try socket.receive()
                try socket.send("HTTP/1.0 200 OK\r\n\r\nhere")
                socket.finish()
                _ = try socket.receiveToEnd()
            }
            // c-ares 1.18 reads no port there: a loopback address of this process's own.
            let place = Place("127.53.\(getpid() & 0xFF).\(Setup.numbers.take() & 0xFF)", 53)
            dns = try DNSServer(["web.test": [.a("127.0.0.1")]], at: place)
            entry = Place("127.0.0.1", try FreePort.take())
            admin = "\(folder.path)/admin.sock"
            let list = try folder.write("resolv.conf", "nameserver \(place.host)\n")
            let route = RouteText(id: "rt", port: entry.port, backends: [], more: ["backend web.test:\(port)"])
            let text = ConfigText(
                settings: ["admin unix:\(admin)"], workers: 2, rawListeners: [entry], routes: [route],
                more: "resolve {\n    min_ttl 100ms\n    timeout 100ms\n    retries 1\n    allow loopback\n}\n"
            ).description
            let mounts = "mount --make-rprivate / && mount --bind \(list) /etc/resolv.conf && exec \"$@\""
            node = try Node(text, folder: folder, launcher: ["unshare", "-m", "sh", "-c", mounts, "sh"])
        }

        /// Runs a shell command among the node's mounts.
        func shell(_ command: String) throws -> Child {
            try Child("nsenter", ["-t", "\(node.child.pid)", "-m", "sh", "-c", command])
        }

        func name() throws -> [String: Any] {
            try (Admin.json(["status"], admin)["names"] as? [[String: Any]] ?? []).first.unwrap("name")
        }
        func problems() throws -> [String] { try Admin.json(["status"], admin)["problems"] as? [String] ?? [] }
        func waitForAnswer() throws {
            try awaitUntil("an answer") {
                let name = try self.name()
                return name["error"] is NSNull && name["addresses"] as? [String] == ["127.0.0.1"]
            }
        }
    }

    @Test("a FIFO or a device in its place fails lookups, says so, and holds nobody; addresses stay")
    func noFile() throws {
        let setup = try Setup()
        try setup.waitForAnswer()
        let fifo = "\(setup.folder.path)/fifo"
        #expect(mkfifo(fifo, 0o600) == 0)
        for other in [fifo, "/dev/zero", "/dev/tty"] where access(other, F_OK) == 0 {
            let failures = setup.node.child.lines.count { $0.isEvent("name_failing") }
            #expect(try setup.shell("mount --bind \(other) /etc/resolv.conf").waitForExit() == .code(0))
            let line = try setup.node.child.wait("a failure") { lines in
                let events = lines.filter { $0.isEvent("name_failing") }
                return events.count > failures ? events.last : nil
            }
            #expect(line.text.contains("/etc/resolv.conf: it is not a regular file"), "\(line.text)")
            #expect(try setup.name()["addresses"] as? [String] == ["127.0.0.1"])
            #expect(try Load.ask(setup.entry) == "here")
            #expect(try setup.shell("umount /etc/resolv.conf").waitForExit() == .code(0))
            try setup.waitForAnswer()
        }
    }

    @Test(
        "a file system that does not answer holds the resolver alone: an event and `status` say so, and when it is over",
        .enabled(if: access("/dev/fuse", R_OK | W_OK) == 0, "needs /dev/fuse"))
    func stuck() throws {
        let setup = try Setup()
        try setup.waitForAnswer()
        // A FUSE file whose server says nothing, until this process ends.
        let silent = try setup.shell(
            "exec 3<>/dev/fuse; mount -i -t fuse none /etc/resolv.conf -o fd=3,rootmode=100644,user_id=0,group_id=0 "
                + "&& echo mounted && exec cat")
        _ = try silent.wait("the mount") { lines in lines.first { $0.text == "mounted" } }
        try setup.node.waitForEvent("resolver_stuck")
        #expect(try setup.problems().contains { $0.contains("resolver stands still") })
        #expect(try setup.name()["addresses"] as? [String] == ["127.0.0.1"])
        #expect(try Load.ask(setup.entry) == "here")
        silent.closeInput()
        try setup.node.waitForEvent("resolver_recovered")
        try awaitUntil("no such problem") { try !setup.problems().contains { $0.contains("stands still") } }
        #expect(try setup.shell("umount -l /etc/resolv.conf").waitForExit() == .code(0))
        try setup.waitForAnswer()
    }
}
