import Foundation
import TestSupport
import Testing

@Suite("Commands that take files, and what they say of two places") struct CommandFilesTests {
    private let folder: TemporaryFolder
    private let fine = "pipeline raw {\n    backend\n}\n\nlisten [::1]:1  tcp_raw  via raw\n"
    private let wrong = "pipeline raw {\n    backend\n}\n\nlisten [::1]:1  tcp_raw  via rat\n"

    init() throws { folder = try TemporaryFolder() }

    @Test("`check a b` checks each, and ends as the worst; `fmt a b` formats each")
    func several() throws {
        let (one, two, three) = (
            try folder.write("a", fine), try folder.write("b", wrong), try folder.write("c", fine)
        )
        let all = try Binary.run(["check", one, two, three])
        #expect(all.exit == .code(1) && all.error.contains("\(two):5:30: error"), "\(all)")
        #expect(all.out.contains("\(one): fine") && all.out.contains("\(three): fine"))
        #expect(try Binary.run(["check", one, three]).exit == .code(0))
        let json = try Binary.run(["check", "--json", one, two]).out.split(separator: "\n")
        #expect(json.count == 2)
        let loose = fine.replacing("  tcp_raw  ", with: " tcp_raw ")
        let files = try ["d", "e"].map { try folder.write($0, loose) } + [one]
        let check = try Binary.run(["fmt", "--check"] + files)
        #expect(check.exit == .code(1) && check.out.split(separator: "\n").count == 2, "\(check)")
        let format = try Binary.run(["fmt"] + files)
        #expect(format.exit == .code(0) && format.out == "\(files[0])\n\(files[1])", "\(format)")
        for file in files { #expect(try String(contentsOfFile: file, encoding: .utf8) == fine) }
        #expect(try Binary.run(["fmt", "--check"] + files).exit == .code(0))
    }

    @Test("a refused reload names both places, as `check` does; `status` has no table of flows where none are recorded")
    func places() throws {
        let admin = "\(folder.path)/admin.sock"
        let entry = Place("::1", try FreePort.take())
        let server = try Server.saying("x")
        let route = RouteText(id: "rt", port: entry.port, backends: [server.place])
        let node = try Node(
            ConfigText(settings: ["admin unix:\(admin)"], rawListeners: [entry], routes: [route]).description,
            folder: folder)
        let text = try String(contentsOfFile: node.config, encoding: .utf8)
        let line = text.split(separator: "\n", omittingEmptySubsequences: false).firstIndex { $0.hasPrefix("listen ") }
        let first = try line.unwrap("line") + 1
        try folder.write("node.pipeline", text + "\nlisten \(entry) tcp_raw via raw\n")
        let refused = try Binary.run(["reload", "--admin", admin])
        #expect(refused.exit == .code(1), "\(refused)")
        #expect((refused.out + refused.error).contains(": \(node.config):\(first):8"), "\(refused)")
        #expect(try !Binary.run(["status", "--admin", admin]).out.contains("FLOWS"))
    }
}
