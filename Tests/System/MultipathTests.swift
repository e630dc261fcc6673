import Foundation
import Glibc
import TestSupport
import Testing

/// A client with two paths to the node, each a link of its own.
@Suite(
    "Multipath TCP: two paths",
    .enabled(if: Namespace.obstacle == nil, "no network namespace here"),
    .enabled(if: Socket.hasMultipath, "this kernel has no Multipath TCP"))
struct MultipathTests {
    private let home: Namespace
    private let edge: Namespace
    private let server: Server

    init() throws {
        (home, edge) = (try Namespace(), try Namespace())
        server = try Server.echo(edge.near)
        for path in 1...2 {
            try Namespace.run(
                "ip",
                [
                    "-n", home.name, "link", "add", "path\(path)", "type", "veth", "peer", "name", "path\(path)",
                    "netns",
                    edge.name,
                ])
            for (end, namespace) in [(1, home), (2, edge)] {
                try namespace.ip("-6 addr add fd99:\(path)::\(end)/64 dev path\(path) nodad")
                try namespace.ip("link set path\(path) up")
            }
        }
        for namespace in [home, edge] { try namespace.ip("mptcp limits set subflows 2 add_addr_accepted 2") }
        // The node's host says that it has another address.
        try edge.ip("mptcp endpoint add fd99:2::2 dev path2 signal")
    }

    /// Addresses by which the client is connected, as `ss` has them.
    private func paths() throws -> Int {
        let child = try Child(
            "ip", ["netns", "exec", home.name, "ss", "-Htn", "state", "established", "dport", "=", ":8080"])
        child.closeInput()
        _ = try child.waitForExit()
        return child.lines.count { $0.text.contains(":8080") }
    }

    @Test("a client whose first path is cut goes on by the second, and the backend sees nothing of it")
    func firstPathCut() throws {
        let node = try Node(
            """
            node test {
                workers  1
            }
            pipeline raw {
                backend  round_robin
            }
            listen [::]:8080 tcp_raw via raw multipath on
            route {
                id       rt
                owner    a/b/c
                listen   8080
                backend  \(server.place)
            }

            """, in: edge.name)
        let client = try home.concurrently { try Socket.connect(to: Place("fd99:1::2", 8080), multipath: true) }.value()
        try client.send("hi")
        #expect(try client.receive(exactly: 2) == Array("hi".utf8))
        try awaitUntil("the second path is there") { try paths() == 2 }
        try home.ip("link set path1 down")
        let block = [UInt8]((0..<200_003).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        for _ in 0..<5 {
            try client.send(block, Deadline(seconds: 30))
            #expect(try client.receive(exactly: block.count, Deadline(seconds: 30)) == block)
        }
        client.finish()
        #expect(try client.receiveToEnd(Deadline(seconds: 30)).ending == .fin)
        #expect(try node.log("the connection") { $0.route == "rt" }.reason == "relay.closed client")
    }
}
