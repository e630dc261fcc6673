import CLinux
import Foundation
import Glibc
import TestSupport
import Testing

/// `run --keep`: the small process in front of the node.
@Suite("R32: a crash refuses nobody, without a service manager")
struct KeepProcessTests {
    /// A node behind its keeper.
    struct Kept {
        let site: InheritedListenersTests.Site
        let keeper: Child

        init(settings: [String] = []) throws {
            site = try InheritedListenersTests.Site()
            try site.write(settings: settings)
            keeper = try Child(Binary.path, ["run", "--keep", site.config])
            _ = try node(1)
        }

        /// The process id of the node that was ready as the n-th.
        func node(_ number: Int) throws -> pid_t {
            try keeper.wait("ready node \(number)") { lines in
                let ready = lines.filter { $0.isEvent("ready") }
                return ready.count >= number ? ready[number - 1].number("pid").map(pid_t.init) : nil
            }
        }
    }

    @Test("who waits in the queue of a node that is killed is served by the next one: ten times")
    func queues() throws {
        let kept = try Kept()
        for number in 1...10 {
            let node = try kept.node(number)
            try kept.site.isServed()
            // It accepts nobody any more.
            try stop(node)
            let waiting = try (0..<20).map { _ in try Socket.connect(to: kept.site.entry) }
            for client in waiting { try client.send("ask") }
            Glibc.kill(node, SIGKILL)
            for client in waiting { #expect(try client.receive(exactly: 3) == Array("ask".utf8)) }
        }
        kept.keeper.signal(SIGTERM)
        #expect(try kept.keeper.waitForExit() == .code(0))
    }

    /// SIGSTOP, and every thread stands still.
    private func stop(_ process: pid_t) throws {
        Glibc.kill(process, SIGSTOP)
        let folder = "/proc/\(process)/task"
        try awaitUntil("process \(process) stands still") {
            try FileManager.default.contentsOfDirectory(atPath: folder).allSatisfy { thread in
                let line = try String(contentsOfFile: "\(folder)/\(thread)/stat", encoding: .utf8)
                return line.split(separator: ")").last?.hasPrefix(" T") == true
            }
        }
    }

    @Test("ten SIGKILLs under a steady load: no connect fails, and only what was open when it was killed ends")
    func steadyLoad() throws {
        let kept = try Kept()
        let (stop, entry, tally) = (Flag(), kept.site.entry, Tally())
        let clients = (0..<4).map { _ in concurrently { KeepProcessTests.load(entry, until: stop, tally) } }
        var kills: [(from: UInt64, to: UInt64)] = []
        for number in 1...10 {
            let node = try kept.node(number)
            let served = tally.value
            try awaitUntil("node \(number) serves") { tally.value >= served + 8 }
            let before = Deadline.now()
            Glibc.kill(node, SIGKILL)
            _ = try kept.keeper.wait("that it has ended") { lines in
                lines.filter { $0.isEvent("node_ended") }.count >= number ? true : nil
            }
            kills.append((before, Deadline.now()))
        }
        _ = try kept.node(11)
        try kept.site.isServed()
        stop.set()
        var (served, lost) = (0, 0)
        for client in clients {
            let outcome = try client.value(Deadline(), "end of a client")
            served += outcome.served
            #expect(outcome.refused.isEmpty, "\(outcome.refused)")
            for one in outcome.ended {
                lost += 1
                #expect(kills.contains { one.began <= $0.to && one.ended >= $0.from }, "\(one)")
            }
        }
        #expect(served >= 80)
        // At most one for each client and kill.
        #expect(lost <= 40)
    }

    struct Outcome: Sendable {
        var served = 0
        var refused: [String] = []
        var ended: [(began: UInt64, ended: UInt64, how: String)] = []
    }

    final class Tally: @unchecked Sendable {
        private let lock = NSLock()
        private var count = 0
        var value: Int { lock.withLock { count } }
        func add() { lock.withLock { count += 1 } }
    }

    static func load(_ entry: Place, until stop: Flag, _ tally: Tally) -> Outcome {
        var outcome = Outcome()
        while !stop.isSet {
            let began = Deadline.now()
            let client: Socket
            do { client = try Socket.connect(to: entry) } catch {
                outcome.refused.append("\(error)")
                continue
            }
            do {
                try client.send("ask")
                _ = try client.receive(exactly: 3)
                outcome.served += 1
                tally.add()
            } catch { outcome.ended.append((began, Deadline.now(), "\(error)")) }
        }
        return outcome
    }

    @Test("a config that does not compile ends the keeper at its first start; later it gives up after five starts")
    func givesUp() throws {
        let kept = try Kept()
        let other = try InheritedListenersTests.Site()
        try other.folder.write("node.pipeline", "pipeline {")
        let first = try Child(Binary.path, ["run", "--keep", other.config])
        #expect(try first.waitForExit() == .code(1))
        try kept.site.folder.write("node.pipeline", "pipeline {")
        Glibc.kill(try kept.node(1), SIGKILL)
        #expect(try kept.keeper.waitForExit() == .code(1))
        #expect(kept.keeper.lines.filter { $0.isEvent("not_started") }.count == 5)
        #expect(kept.keeper.output.contains("keeper_gave_up"))
    }

    @Test("signals are passed on: a reload, an end; what the node says goes on to the service manager")
    func signals() throws {
        let site = try InheritedListenersTests.Site()
        let manager = try FakeManager()
        let keeper = try manager.start(["run", "--keep", site.config])
        keeper.signal(SIGHUP)
        _ = try keeper.wait("the reload") { $0.first { $0.isEvent("reloaded") } }
        try site.isServed()
        try awaitUntil("it has passed on what the node says") {
            manager.take()
            return manager.said.contains { $0.contains("RELOADING=1") }
        }
        #expect(manager.kept.isEmpty)
        keeper.signal(SIGTERM)
        #expect(try keeper.waitForExit() == .code(0))
        manager.take()
        #expect(manager.said.contains { $0.contains("STOPPING=1") })
    }

    @Test("messages of other processes keep nothing, and take nothing away")
    func strangers() throws {
        let kept = try Kept()
        let node = try kept.node(1)
        let variables = try String(contentsOfFile: "/proc/\(node)/environ", encoding: .utf8).split(separator: "\0")
        let address = try variables.first { $0.hasPrefix("NOTIFY_SOCKET=") }.map { String($0.dropFirst(14)) }
            .unwrap("NOTIFY_SOCKET")
        for number in 0..<2 {
            let text = Array("FDSTOREREMOVE=1\nFDNAME=listener/[..1].\(kept.site.entry.port)/\(number)".utf8)
            #expect(text.withUnsafeBytes { cl_send_datagram(address, $0.baseAddress, $0.count) } == 0)
        }
        Glibc.kill(node, SIGKILL)
        _ = try kept.node(2)
        #expect(kept.keeper.lines.contains { $0.isEvent("listeners_inherited") && $0.text.contains("\"sockets\":2") })
    }
}
