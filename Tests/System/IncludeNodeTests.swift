import Foundation
import Glibc
import TestSupport
import Testing

/// `include` in a running node, beside nginx's.
@Suite("Configs of several files") struct IncludeNodeTests {
    private let folder: TemporaryFolder
    private var admin: String { "\(folder.path)/admin.sock" }

    init() throws {
        folder = try TemporaryFolder()
        try FileManager.default.createDirectory(atPath: "\(folder.path)/conf.d", withIntermediateDirectories: true)
    }

    private func main(_ more: String = "") -> String {
        """
        node test {
            admin    unix:\(admin)
            workers  1
        }
        pipeline raw {
            backend  round_robin
        }
        include conf.d/*.pipeline
        \(more)
        """
    }

    /// A tenant's file: a listener and its route.
    private func tenant(_ name: String, _ place: Place, _ server: Server) throws {
        try folder.write(
            "conf.d/\(name).pipeline",
            """
            listen \(place) tcp_raw via raw
            route {
                id       rt_\(name)
                owner    a/\(name)/prod
                listen   \(place.port)
                backend  \(server.place)
            }

            """)
    }

    private func answer(_ place: Place) throws -> String {
        String(decoding: try Socket.connect(to: place).receiveToEnd().bytes, as: UTF8.self)
    }

    @Test("a reload reads every file again: one that changed, one that came, one that went")
    func reload() throws {
        let (one, two) = (try Server.saying("one"), try Server.saying("two"))
        let places = try (0..<2).map { _ in Place("::1", try FreePort.take()) }
        try tenant("a", places[0], one)
        let node = try Node(main(), folder: folder)
        #expect(try answer(places[0]) == "one")
        var status = try Admin.json(["status"], admin)
        #expect(
            status["config_files"] as? [String] == ["\(folder.path)/node.pipeline", "\(folder.path)/conf.d/a.pipeline"])
        // The config file itself stays as it is.
        try tenant("a", places[0], two)
        try tenant("b", places[1], one)
        #expect(try node.reload(main()).isEvent("reloaded"))
        #expect(try answer(places[0]) == "two")
        #expect(try answer(places[1]) == "one")
        let text = try Binary.run(["status", "--admin", admin]).out
        #expect(
            text.contains("includes \(folder.path)/conf.d/a.pipeline \(folder.path)/conf.d/b.pipeline\n"), "\(text)")
        try FileManager.default.removeItem(atPath: "\(folder.path)/conf.d/a.pipeline")
        #expect(try node.reload(main()).isEvent("reloaded"))
        #expect(throws: (any Error).self) { try Socket.connect(to: places[0]) }
        #expect(try answer(places[1]) == "one")
        status = try Admin.json(["status"], admin)
        #expect((status["config_files"] as? [String])?.count == 2)
    }

    @Test("R26: an included file with an error refuses the reload, with its place; what runs goes on")
    func refused() throws {
        let one = try Server.saying("one")
        let place = Place("::1", try FreePort.take())
        try tenant("a", place, one)
        let node = try Node(main(), folder: folder)
        try folder.write("conf.d/b.pipeline", "# fine\nlisten nowhere tcp_raw via raw\n")
        let line = try node.reload(main())
        #expect(line.isEvent("reload_refused"))
        #expect(line.text.contains("/conf.d/b.pipeline:2:8: error: "), "\(line.text)")
        #expect(try answer(place) == "one")
        try FileManager.default.removeItem(atPath: "\(folder.path)/conf.d/b.pipeline")
        #expect(mkfifo("\(folder.path)/conf.d/b.pipeline", 0o600) == 0)
        let again = try node.reload(main())
        #expect(again.text.contains("b.pipeline: it is not a regular file"), "\(again.text)")
        #expect(try answer(place) == "one")
    }

    @Test("check, check --json, check --print, explain and fmt know of several files")
    func commands() throws {
        try folder.write(
            "conf.d/a.pipeline",
            "listen [::1]:5432 tcp_raw via raw\nroute {\n    id       rt_db\n    owner    a/b/c\n    listen   5432\n"
                + "    backend  [fd00::1]:1\n}\n")
        let file = try folder.write("node.pipeline", main())
        let part = "\(folder.path)/conf.d/a.pipeline"
        #expect(try Binary.run(["check", file]).exit == .code(0))
        let printed = try Binary.run(["check", "--print", file]).out
        #expect(printed.hasPrefix("# \(file)\n# \(part)\n"), "\(printed)")
        #expect(printed.contains("listen [::1]:5432 tcp_raw via raw  # \(part):1\n"), "\(printed)")
        #expect(printed.contains("route  # \(part):2\n"), "\(printed)")
        let why = try Binary.run(["explain", file, "--to", "[::1]:5432", "--from", "[::1]:1"]).out
        #expect(why.contains("(\(part):1)"), "\(why)")
        let json = try Binary.run(["explain", file, "--to", "[::1]:5432", "--from", "[::1]:1", "--json"]).out
        #expect(json.contains("\"file\":\"\(part)\",\"line\":1"), "\(json)")
        // The formatter sees one file: this one has an include, and is right as it is but for its blanks.
        #expect(try Binary.run(["fmt", part]).exit == .code(0))
        #expect(try String(contentsOfFile: part, encoding: .utf8).hasPrefix("listen [::1]:5432  tcp_raw  via raw\n"))
        #expect(try Binary.run(["fmt", file]).exit == .code(0))
        #expect(try String(contentsOfFile: file, encoding: .utf8).contains("include conf.d/*.pipeline\n"))
        try folder.write("conf.d/b.pipeline", "listn\n")
        let bad = try Binary.run(["check", "--json", file])
        #expect(bad.exit == .code(1))
        #expect(bad.out.contains("\"file\":\"\(folder.path)/conf.d/b.pipeline\",\"line\":1"), "\(bad.out)")
        let text = try Binary.run(["check", file]).error
        #expect(text.hasPrefix("\(folder.path)/conf.d/b.pipeline:1:1: error: unknown keyword `listn`\n   1 | listn\n"))
    }

    @Test("nginx beside: the order of a pattern's files, nothing for a pattern, an error for a path")
    func nginx() throws {
        // nginx takes the first server of an address as the default: who that is shows the order.
        let port = try FreePort.take()
        for name in ["b", "B", "10", "9"] {
            try folder.write(
                "conf.d/\(name).conf", "server { listen [::1]:\(port); return 200 \"\(name)\"; }\n")
            try folder.write("conf.d/\(name).pipeline", "set s\(name) { 192.0.2.0/24 }\n")
        }
        let http =
            "server_names_hash_bucket_size 64; include \(folder.path)/conf.d/*.conf; include \(folder.path)/none/*.conf;"
        let server = try Nginx(seen: "$uri", http: http, ready: Place("::1", port))
        let client = try Socket.connect(to: Place("::1", port))
        try client.send("GET / HTTP/1.0\r\n\r\n")
        let first = String(decoding: try client.receiveToEnd().bytes, as: UTF8.self).suffix(2)
        #expect(first == "10")
        let file = try folder.write("node.pipeline", main("include none/*.pipeline"))
        let said = try Binary.run(["check", "--json", file]).out
        let places = ["10", "9", "B", "b"].compactMap { said.range(of: "/conf.d/\($0).pipeline\"")?.lowerBound }
        #expect(places.count == 4 && places == places.sorted(), "\(said)")
        #expect(said.contains("no file matches `none/*.pipeline`"))
        _ = server
        try folder.write("node.pipeline", main("include none/x.pipeline"))
        #expect(try Binary.run(["check", file]).exit == .code(1))
        let config = try folder.write("nginx.conf", "events {}\nhttp { include \(folder.path)/none/x.conf; }\n")
        let theirs = try Child("nginx", ["-t", "-p", folder.path, "-c", config, "-e", "stderr"])
        #expect(try theirs.waitForExit() == .code(1))
        #expect(theirs.output.contains("No such file or directory"), "\(theirs.output)")
    }
}
