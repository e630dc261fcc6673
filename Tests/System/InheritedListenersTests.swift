import CLinux
import Foundation
import Glibc
import TestSupport
import Testing

/// Listening sockets that a process was started with, by a service manager that is the test itself.
@Suite("R32: listening sockets outlive the process that made them")
struct InheritedListenersTests {
    struct Site {
        let folder: TemporaryFolder
        let server: Server
        let entry: Place
        let config: String

        init() throws {
            folder = try TemporaryFolder()
            server = try Server.echo()
            entry = Place("::1", try FreePort.take())
            config = "\(folder.path)/node.pipeline"
            try write()
        }

        func write(workers: Int = 2, at places: [Place]? = nil, settings: [String] = []) throws {
            let places = places ?? [entry]
            let routes = places.enumerated().map {
                RouteText(host: nil, id: "rt_\($0)", port: $1.port, backends: [server.place])
            }
            let text = ConfigText(
                settings: ["admin unix:\(folder.path)/admin.sock"] + settings, workers: workers, rawListeners: places,
                routes: routes)
            try folder.write("node.pipeline", text.description)
        }

        var run: [String] { ["run", config] }

        func exchange(_ client: Socket) throws {
            try client.send("ask")
            #expect(try client.receive(exactly: 3) == Array("ask".utf8))
        }

        func isServed() throws { try exchange(try Socket.connect(to: entry)) }

        func isEnded(_ place: Place) {
            #expect(throws: (any Error).self) { try Socket.connect(to: place) }
        }
    }

    private func events(_ name: String, _ child: Child) -> [String] {
        child.lines.filter { $0.isEvent(name) }.map(\.text)
    }

    @Test("after a SIGKILL the next process serves who waited in the queues, and takes every socket")
    func kill() throws {
        let site = try Site()
        let manager = try FakeManager()
        try manager.start(site.run)
        #expect(manager.kept.count == 2)
        for _ in 0..<3 {
            try site.isServed()
            try manager.kill()
            // Nobody serves, and nobody refuses.
            let waiting = try (0..<20).map { _ in try Socket.connect(to: site.entry) }
            for client in waiting { try client.send("ask") }
            let child = try manager.start(site.run)
            for client in waiting { #expect(try client.receive(exactly: 3) == Array("ask".utf8)) }
            #expect(events("listeners_inherited", child).first?.contains("\"sockets\":2") == true, "\(child.output)")
            #expect(manager.kept.count == 2)
        }
    }

    @Test("another number of workers, more and fewer: each socket is served, those that miss are made")
    func otherWorkers() throws {
        let site = try Site()
        let manager = try FakeManager()
        for (workers, sockets) in [(1, 1), (3, 3), (1, 3), (2, 3)] {
            try site.write(workers: workers)
            try manager.start(site.run)
            #expect(manager.kept.count == sockets)
            for _ in 0..<20 { try site.isServed() }
            try manager.kill()
        }
    }

    @Test("SIGTERM: open connections go on, newcomers wait for the next process")
    func term() throws {
        let site = try Site()
        let manager = try FakeManager()
        let old = try manager.start(site.run)
        let held = try Socket.connect(to: site.entry)
        try site.exchange(held)
        old.signal(SIGTERM)
        _ = try old.wait("that it drains") { $0.first { $0.isEvent("draining") } }
        // Who comes while the workers let go may still be served by the old one.
        var waiting: [Socket] = []
        for _ in 0..<20 { waiting.append(try Socket.connect(to: site.entry)) }
        try site.exchange(held)
        for client in waiting { try client.send("ask") }
        manager.take()
        let new = try manager.start(site.run)
        for client in waiting { #expect(try client.receive(exactly: 3) == Array("ask".utf8)) }
        try site.exchange(held)
        held.finish()
        for client in waiting { client.finish() }
        #expect(try old.waitForExit() == .code(0))
        try site.isServed()
        withExtendedLifetime(new) {}
    }

    @Test("a reload that removes a listener ends it at once, whoever keeps it; one that adds one has it kept")
    func reload() throws {
        let site = try Site()
        let manager = try FakeManager()
        let child = try manager.start(site.run)
        let other = Place("::1", try FreePort.take())
        try site.write(at: [site.entry, other])
        child.signal(SIGHUP)
        _ = try child.wait("the reload") { $0.first { $0.isEvent("reloaded") } }
        try site.exchange(try Socket.connect(to: other))
        manager.take()
        #expect(manager.kept.count == 4)
        try site.write()
        child.signal(SIGHUP)
        _ = try child.wait("the second reload") { lines in
            lines.filter { $0.isEvent("reloaded") }.count > 1 ? true : nil
        }
        site.isEnded(other)
        manager.take()
        #expect(manager.kept.count == 2)
        #expect(manager.said.contains { $0.contains("FDSTOREREMOVE=1") })
        try site.isServed()
    }

    @Test("socket activation: one socket of a socket unit, three workers; who came before the node is served")
    func activation() throws {
        let site = try Site()
        try site.write(workers: 3)
        let unit = try Socket.listen(at: site.entry)
        let manager = try FakeManager(units: [(unit.descriptor, "edge.socket")])
        let early = try Socket.connect(to: site.entry)
        try early.send("ask")
        let child = try manager.start(site.run)
        #expect(try early.receive(exactly: 3) == Array("ask".utf8))
        for _ in 0..<20 { try site.isServed() }
        #expect(events("listeners_inherited", child).count == 1)
        // It has the unit's anyhow.
        #expect(manager.kept.allSatisfy { cl_is_same_socket($0.descriptor, unit.descriptor) == 0 })
        try manager.kill()
        let waiting = try (0..<10).map { _ in try Socket.connect(to: site.entry) }
        try manager.start(site.run)
        for client in waiting { try site.exchange(client) }
    }

    @Test("what no listener fits is said and closed once the node serves: its queue is refused, its owner's goes on")
    func rest() throws {
        let site = try Site()
        let stray = Place("::1", try FreePort.take())
        let foreign = try Socket.listen(at: stray)
        let ours = Place("::1", try FreePort.take())
        let stored = try Socket.listen(at: ours)
        let file = open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        let datagrams = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(datagrams) }
        let manager = try FakeManager(units: [
            (foreign.descriptor, "stray.socket"), (stored.descriptor, "listener/[..1].1/0"), (file, "null"),
            (datagrams, "dns"),
        ])
        let queued = try [stray, ours].map { try Socket.connect(to: $0) }
        let child = try manager.start(site.run)
        try site.isServed()
        for client in queued { #expect(try client.receiveToEnd().ending == .reset) }
        let closed = events("inherited_closed", child)
        #expect(closed.count == 4, "\(child.output)")
        #expect(closed.contains { $0.contains("stray.socket") && $0.contains("\"refused\":1") })
        for fault in ["it is no socket (", "no socket of TCP"] {
            #expect(closed.contains { $0.contains(fault) })
        }
        _ = try Socket.connect(to: stray)
        site.isEnded(ours)
    }

    @Test("a socket that takes IPv4 too is refused with what to set, and nothing starts that would share its port")
    func bothFamilies() throws {
        let site = try Site()
        let port = try FreePort.take()
        let fd = socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(fd) }
        var (on, off): (Int32, Int32) = (1, 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, 4)
        setsockopt(fd, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &off, 4)
        let place = Place("::", port)
        let made = try place.withAddress { bind(fd, $0, $1) == 0 && listen(fd, 10) == 0 }
        #expect(made)
        try site.write(at: [place])
        let manager = try FakeManager(units: [(fd, "edge.socket")])
        let child = try manager.start(site.run, isReady: false)
        #expect(try child.waitForExit() == .code(1))
        #expect(child.output.contains("BindIPv6Only=ipv6-only"), "\(child.output)")
    }

    @Test("a start that fails takes nothing: the sockets and who waits there are the next one's")
    func failingStart() throws {
        let site = try Site()
        let manager = try FakeManager()
        try manager.start(site.run)
        try manager.kill()
        let waiting = try Socket.connect(to: site.entry)
        try site.folder.write("node.pipeline", "pipeline {")
        let failed = try manager.start(site.run, isReady: false)
        #expect(try failed.waitForExit() == .code(1))
        manager.take()
        try site.write()
        try manager.start(site.run)
        try site.exchange(waiting)
    }

    @Test("variables for another process, and more descriptors than there are, are no obstacle")
    func wrongVariables() throws {
        let site = try Site()
        for environment in [["LISTEN_PID": "1", "LISTEN_FDS": "3"], ["LISTEN_PID": "x", "LISTEN_FDS": "-1"]] {
            let child = try Child(Binary.path, site.run, environment: environment)
            _ = try child.wait("that it is ready") { $0.first { $0.isEvent("ready") } }
            try site.isServed()
            child.signal(SIGKILL)
            _ = try child.waitForExit()
        }
        let script = "LISTEN_PID=$$ LISTEN_FDS=1000000 exec \"$0\" \"$@\""
        let child = try Child("/bin/sh", ["-c", script, Binary.path] + site.run)
        _ = try child.wait("that it is ready") { $0.first { $0.isEvent("ready") } }
        try site.isServed()
    }
}
