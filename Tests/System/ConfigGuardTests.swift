import Foundation
import Glibc
import TestSupport
import Testing

/// R29: what a program writes and a mistake empties takes nothing away by itself.
@Suite("Reloads that would take everything away") struct ConfigGuardTests {
    private let folder: TemporaryFolder
    private let entry: Place
    private let server: Server
    private var admin: String { "\(folder.path)/admin.sock" }

    init() throws {
        folder = try TemporaryFolder()
        entry = Place("127.0.0.1", try FreePort.take())
        server = try Server.saying("x")
        try FileManager.default.createDirectory(atPath: "\(folder.path)/conf.d", withIntermediateDirectories: true)
    }

    private var text: String {
        """
        node test {
            admin    unix:\(admin)
            workers  1
        }
        pipeline tls {
            sni      timeout 10s
            backend  round_robin
        }
        listen \(entry) tls_passthrough via tls
        backends web {
            backend  \(server.place)
        }
        route file sni.map {
            id      rt
            owner   a/b/c
            listen  \(entry.port)
        }
        include conf.d/*.pipeline

        """
    }

    private func names(_ numbers: Range<Int>) throws {
        try folder.write("sni.map", numbers.map { "n\($0).example.com web\n" }.joined())
    }

    private func answer(_ name: String) throws -> String {
        let client = try Socket.connect(to: entry)
        try client.send(HelloBuilder(name).bytes)
        return String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
    }

    private func reload(_ more: [String] = []) throws -> (exit: Child.Exit, text: String) {
        let answer = try Binary.run(["reload", "--admin", admin] + more)
        return (answer.exit, answer.out + answer.error)
    }

    private func expectRefused(_ why: String) throws {
        let refused = try reload()
        #expect(refused.exit == .code(1) && refused.text.contains(why), "\(refused)")
        #expect(refused.text.contains("pipelined reload --confirm"), "\(refused)")
    }

    @Test("an empty or cut `route file` is refused until it is confirmed; a few names less are not")
    func routeFile() throws {
        try names(0..<20)
        let node = try Node(text, folder: folder)
        #expect(try answer("n15.example.com") == "x")
        for cut in [0..<0, 0..<9] {
            try names(cut)
            try expectRefused("sni.map has")
            #expect(try answer("n15.example.com") == "x")
        }
        try names(0..<10)
        #expect(try reload().exit == .code(0))
        #expect(try answer("n15.example.com") == "")
        try names(0..<0)
        try expectRefused("sni.map has no names any more")
        #expect(try reload(["--confirm"]).exit == .code(0))
        #expect(try answer("n5.example.com") == "")
        // It is empty by now.
        #expect(try reload().exit == .code(0))
        #expect(!node.child.hasEnded)
    }

    @Test("on a node with `state` the first reload after a start is guarded like any other")
    func withState() throws {
        try names(0..<20)
        let kept = text.replacing("    workers  1\n", with: "    workers  1\n    state    \(folder.path)/data\n")
        let node = try Node(kept, folder: folder)
        try names(0..<0)
        try expectRefused("sni.map has no names any more")
        #expect(try answer("n15.example.com") == "x")
        #expect(!node.child.hasEnded)
    }

    @Test("a pattern that matches nothing any more, and a config without listeners, are refused until confirmed")
    func patterns() throws {
        try names(0..<2)
        let node = try Node(text, folder: folder)
        let own = """
            route own.example.com {
                id       own
                owner    a/b/d
                listen   \(entry.port)
                backend  \(server.place)
            }

            """
        // None yet: nothing is lost.
        #expect(try reload().exit == .code(0))
        try folder.write("conf.d/a.pipeline", own)
        try folder.write("conf.d/b.pipeline", "# nothing\n")
        #expect(try reload().exit == .code(0))
        try FileManager.default.removeItem(atPath: "\(folder.path)/conf.d/b.pipeline")
        #expect(try reload().exit == .code(0))
        try FileManager.default.removeItem(atPath: "\(folder.path)/conf.d/a.pipeline")
        try expectRefused("conf.d/*.pipeline` matches no file any more (it had 1)")
        #expect(try answer("own.example.com") == "x")
        #expect(try reload(["--confirm"]).exit == .code(0))
        #expect(try answer("own.example.com") == "")
        try folder.write("node.pipeline", "")
        try expectRefused("no `listen` and no `expose` line any more")
        #expect(try answer("n1.example.com") == "x")
        #expect(!node.child.hasEnded)
    }
}
