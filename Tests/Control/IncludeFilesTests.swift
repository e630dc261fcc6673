import FilterCatalog
import Foundation
import Glibc
import PipelineHost
import PipelineLanguage
import Testing

@testable import PipelineNode

/// `include` on a real disk: what is there and can't be read is refused, and nothing blocks.
@Suite struct IncludeFilesTests {
    private let folder: URL
    private let raw = "pipeline raw {\n    anti_spoof  refuse others\n    backend     round_robin\n}\n"

    init() throws {
        // A pattern's characters in the folder's own name are no pattern.
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("include-[a]*-\(UUID().uuidString)")
        try FileManager.default.createDirectory(
            at: folder.appendingPathComponent("conf.d"), withIntermediateDirectories: true)
    }

    private func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

    @discardableResult private func write(_ name: String, _ text: String) throws -> String {
        try text.write(toFile: path(name), atomically: true, encoding: .utf8)
        return path(name)
    }

    private func load(_ text: String) throws -> LoadedConfig {
        let main = try write("edge.pipeline", text)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try ConfigLoader.load(main)
    }

    @Test("a pattern finds its files in order, each as it is seen from the file that includes it")
    func finds() throws {
        for (name, port) in [("conf.d/b.pipeline", 2), ("conf.d/B.pipeline", 1), ("conf.d/.c.pipeline", 3)] {
            try write(name, "listen [::1]:\(port) tcp_raw via raw\n")
        }
        try write("conf.d/notes.txt", "none of it")
        let loaded = try load("include conf.d/*.pipeline\n\(raw)")
        #expect(loaded.diagnosticText == "")
        let node = try #require(loaded.node)
        #expect(node.program.listeners.map(\.endpoint.port) == [1, 2])
        #expect(node.files == [path("edge.pipeline"), path("conf.d/B.pipeline"), path("conf.d/b.pipeline")])
    }

    @Test("a folder, a FIFO, a device, a link to nowhere: refused by name, at once")
    func kinds() throws {
        try FileManager.default.createDirectory(atPath: path("conf.d/1-folder"), withIntermediateDirectories: true)
        #expect(mkfifo(path("conf.d/2-fifo"), 0o600) == 0)
        #expect(symlink("/dev/zero", path("conf.d/3-device")) == 0)
        #expect(symlink("nowhere", path("conf.d/4-link")) == 0)
        let said = try load("include conf.d/*\n").diagnostics.filter { $0.severity == .error }.map(\.message)
        #expect(
            said == [
                "can't include \(path("conf.d/1-folder")): it is a directory",
                "can't include \(path("conf.d/2-fifo")): it is not a regular file",
                "can't include \(path("conf.d/3-device")): it is not a regular file",
                "can't include \(path("conf.d/4-link")): no such file",
            ])
    }

    @Test("a link to the file that includes it is a cycle, and one to a file that is there too is the same file")
    func links() throws {
        #expect(symlink("../edge.pipeline", path("conf.d/self")) == 0)
        let cycle = try load("include conf.d/self\n")
        #expect(cycle.diagnostics.map(\.message).first?.hasPrefix("an include cycle: ") == true)
    }

    @Test("a link beside the file that it leads to is that file again")
    func again() throws {
        try write("conf.d/a.pipeline", raw)
        #expect(symlink("a.pipeline", path("conf.d/b.pipeline")) == 0)
        let said = try load("include conf.d/*.pipeline\n").diagnostics.map(\.message)
        #expect(said.contains("\(path("conf.d/b.pipeline")) is included twice"), "\(said)")
    }

    @Test("a folder that is not there has no files; a file in the place of one has none either")
    func noFolder() throws {
        try write("plain", "")
        let loaded = try load("include absent/*\ninclude plain/*\n\(raw)listen [::1]:1 tcp_raw via raw\n")
        #expect(loaded.node != nil)
        #expect(loaded.diagnostics.map(\.message) == ["no file matches `absent/*`", "no file matches `plain/*`"])
    }

    @Test(
        "a folder that may not be read is an error, not an empty one", .enabled(if: geteuid() != 0, "root may read all")
    )
    func forbidden() throws {
        chmod(path("conf.d"), 0)
        defer { chmod(path("conf.d"), 0o700) }
        let said = try load("include conf.d/*\n").diagnostics.map(\.message)
        #expect(said.first?.contains("no permission to search it") == true, "\(said)")
    }

    @Test("sets, names and state files of an included file are beside it")
    func beside() throws {
        try write("conf.d/blocked.txt", "192.0.2.0/24\n")
        try write(
            "conf.d/state.json",
            "{\"format\": \"pipelined.state/1\", \"revision\": 7, \"envs\": [], \"instances\": [], \"routes\": []}")
        try write(
            "conf.d/a.pipeline",
            "set blocked file blocked.txt\nroutes file state.json\npipeline p {\n    address  deny @blocked\n"
                + "    backend  round_robin\n}\n")
        let loaded = try load("include conf.d/a.pipeline\nlisten [::1]:1 tcp_raw via p\n")
        #expect(loaded.diagnosticText == "")
        #expect(loaded.node?.revision == 7)
    }

    @Test("what the routing rules find is said at its own file")
    func routes() throws {
        let route = { (id: String, owner: String) in
            "route a.example {\n    id       \(id)\n    owner    \(owner)\n    listen   443\n    backend  [fd00::1]:1\n}\n"
        }
        try write("conf.d/1.pipeline", route("rt_1", "a/b/c"))
        try write("conf.d/2.pipeline", "# two\n" + route("rt_2", "evil/b/c"))
        let text = try load("include conf.d/*\n").diagnosticText
        #expect(text.contains("\(path("conf.d/1.pipeline")):1:7: error: "), "\(text)")
        #expect(text.contains("\(path("conf.d/2.pipeline")):2:7: error: "), "\(text)")
        #expect(text.contains("   2 | route a.example {\n"), "\(text)")
    }

    @Test("config/tenants is right, without a remark, and each of its files is formatted")
    func shipped() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("config/tenants")
        let loaded = try ConfigLoader.load(root.appendingPathComponent("edge.pipeline").path)
        #expect(loaded.diagnosticText == "")
        let node = try #require(loaded.node)
        #expect(node.files.count == 3)
        #expect(node.listeners.count == 103)
        for file in node.files {
            let text = try String(contentsOfFile: file, encoding: .utf8)
            #expect(format(Array(text.utf8), file: file, catalog: catalog).formatted == text, "\(file)")
        }
    }
}
